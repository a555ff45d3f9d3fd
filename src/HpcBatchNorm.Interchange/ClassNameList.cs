using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace HpcBatchNorm.Interchange;

/// <summary>
/// The names of classes as one text in a file's metadata, under <c>class_names</c>: a JSON array, because names may hold any character (ImageNet's have
/// commas in them). Files written before were separated by commas, and are still read.
/// </summary>
internal static class ClassNameList
{
    public const string Key = "class_names";

    // Metadata is no part of a web page: letters stay as they are.
    private static readonly JsonWriterOptions Plain = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static string Write(IEnumerable<string> names)
    {
        using var buffer = new MemoryStream();
        using (var json = new Utf8JsonWriter(buffer, Plain))
        {
            json.WriteStartArray();
            foreach (string name in names)
            {
                json.WriteStringValue(name);
            }

            json.WriteEndArray();
        }

        return Encoding.UTF8.GetString(buffer.GetBuffer(), 0, (int)buffer.Length);
    }

    public static IReadOnlyList<string> Read(string text) => text.StartsWith('[') && TryParse(text) is { } names
        ? names
        : text.Split(',', StringSplitOptions.RemoveEmptyEntries);

    /// <summary>Null where the text is no array of strings, or one has half a character in it: then it is a list of the old form whose first name begins with a bracket.</summary>
    private static List<string>? TryParse(string text)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(text);
            JsonElement root = document.RootElement;
            return root.EnumerateArray().All(e => e.ValueKind == JsonValueKind.String) ? [.. root.EnumerateArray().Select(e => e.GetString()!)] : null;
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException)
        {
            return null;
        }
    }
}
