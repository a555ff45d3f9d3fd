using System.Text.Json;

namespace HpcBatchNorm.Layers;

/// <summary>
/// Reads a layer's attributes from a network file. Every method but the first three takes an attribute's name; with a second argument the attribute may be
/// missing. An attribute that nothing asked for is an error, so that no misspelt one goes unnoticed.
/// </summary>
public sealed class LayerReader
{
    private readonly Dictionary<string, JsonElement> _attributes = new(StringComparer.Ordinal);
    private readonly HashSet<string> _asked = new(StringComparer.Ordinal);

    internal LayerReader(string name, string type, JsonElement? attributes)
    {
        Name = name;
        Type = type;
        if (attributes is JsonElement given)
        {
            foreach (JsonProperty attribute in given.EnumerateObject())
            {
                _attributes.Add(attribute.Name, attribute.Value);
            }
        }
    }

    /// <summary>The layer's name, for messages.</summary>
    public string Name { get; }

    /// <summary>The layer's type, under which the reader is registered.</summary>
    public string Type { get; }

    /// <summary>The error that an attribute's value is not what it must be, for values of one's own.</summary>
    public UserErrorException Mistake(string attribute, string expected) => new(
        $"Layer '{Name}' ({Type}): the attribute '{attribute}' is {_attributes[attribute].GetRawText()}; expected {expected}.");

    /// <summary>A whole number.</summary>
    public int Whole(string attribute, int? otherwise = null) => Get(attribute, otherwise, "a whole number", ReadWhole);

    /// <summary>A number.</summary>
    public float Real(string attribute, float? otherwise = null) =>
        Get(attribute, otherwise, "a number", e => e.ValueKind == JsonValueKind.Number && e.TryGetSingle(out float value) && float.IsFinite(value) ? value : null);

    /// <summary>True or false.</summary>
    public bool Flag(string attribute, bool? otherwise = null) =>
        Get(attribute, otherwise, "true or false", e => e.ValueKind is JsonValueKind.True or JsonValueKind.False ? e.GetBoolean() : null);

    /// <summary>A text.</summary>
    public string Text(string attribute, string? otherwise = null) => Find(attribute, otherwise is not null, "a text") is JsonElement element
        ? element.ValueKind == JsonValueKind.String ? element.GetString()! : throw Mistake(attribute, "a text")
        : otherwise!;

    /// <summary>Rows and columns: a number for both, or <c>[rows, columns]</c>.</summary>
    public Extent Extent(string attribute, Extent? otherwise = null) =>
        Get<Extent>(attribute, otherwise, "a whole number or [rows, columns]", e => ReadWholes(e) switch
        {
            [int both] => both,
            [int rows, int columns] => (rows, columns),
            _ => null,
        });

    /// <summary>Padding: a number for all sides, <c>[rows, columns]</c>, or <c>[top, left, bottom, right]</c>.</summary>
    public Padding Padding(string attribute, Padding? otherwise = null) =>
        Get<Padding>(attribute, otherwise, "a whole number, [rows, columns] or [top, left, bottom, right]", e => ReadWholes(e) switch
        {
            [int all] => all,
            [int rows, int columns] => (rows, columns),
            [int top, int left, int bottom, int right] => (top, left, bottom, right),
            _ => null,
        });

    /// <summary>Initial values: <c>{"fan_in": 2}</c>, <c>{"gaussian": 0.01}</c> or <c>{"constant": 1}</c>.</summary>
    public Initializer Initializer(string attribute, Initializer? otherwise = null)
    {
        const string Expected = "one of {\"fan_in\": gain}, {\"gaussian\": deviation} and {\"constant\": value}, finite, the first two not negative";
        return Find(attribute, otherwise is not null, Expected) is JsonElement element
            ? Layers.Initializer.Read(element) ?? throw Mistake(attribute, Expected)
            : otherwise!;
    }

    /// <summary>Throws when there is an attribute that nothing asked for.</summary>
    internal void End()
    {
        if (_attributes.Keys.FirstOrDefault(a => !_asked.Contains(a)) is string unknown)
        {
            throw new UserErrorException(
                $"Layer '{Name}' ({Type}) has an attribute '{unknown}', which is not known{NearestName.HintOrStop(unknown, _asked)} " +
                (_asked.Count == 0 ? "It takes none." : $"Known: {string.Join(", ", _asked)}."));
        }
    }

    private static int? ReadWhole(JsonElement element) => element.ValueKind == JsonValueKind.Number && element.TryGetInt32(out int value) ? value : null;

    private static int[]? ReadWholes(JsonElement element)
    {
        int?[] values = element.ValueKind == JsonValueKind.Array ? [.. element.EnumerateArray().Select(ReadWhole)] : [ReadWhole(element)];
        return values.Contains(null) ? null : Array.ConvertAll(values, v => v!.Value);
    }

    private T Get<T>(string attribute, T? otherwise, string expected, Func<JsonElement, T?> read)
        where T : struct =>
        Find(attribute, otherwise is not null, expected) is JsonElement element ? read(element) ?? throw Mistake(attribute, expected) : otherwise!.Value;

    private JsonElement? Find(string attribute, bool optional, string expected)
    {
        _asked.Add(attribute);
        if (_attributes.TryGetValue(attribute, out JsonElement element))
        {
            return element;
        }

        string hint = NearestName.Find(attribute, _attributes.Keys) is string near ? $" It has '{near}'; write '{attribute}'." : "";
        return optional ? null : throw new UserErrorException($"Layer '{Name}' ({Type}) lacks the attribute '{attribute}', {expected}.{hint}");
    }
}
