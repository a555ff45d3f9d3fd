using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using HpcBatchNorm.Layers;

namespace HpcBatchNorm.Networks;

/// <summary>
/// Network files: a JSON object with <c>format</c>, <c>version</c>, <c>name</c>, <c>minimum_image_size</c> (found when missing) and <c>layers</c>, each with
/// <c>name</c>, <c>type</c>, <c>inputs</c> (the layer before it when missing) and <c>attributes</c>. What attributes a type has, its layer says.
/// </summary>
internal static class NetworkJson
{
    private const string Format = "hpcbn-network";
    private const int Version = 1;

    private static readonly JavaScriptEncoder Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping;

    public static string Write(Network network)
    {
        StringBuilder text = new StringBuilder("{\n")
            .Append($"  \"format\": \"{Format}\",\n")
            .Append($"  \"version\": {Version},\n")
            .Append($"  \"name\": \"{JsonEncodedText.Encode(network.Name, Encoder)}\",\n")
            .Append(FormattableString.Invariant($"  \"minimum_image_size\": {network.MinimumImageSize},\n"))
            .Append("  \"layers\": [\n");
        text.AppendJoin(",\n", network.Nodes.Select(n => $"    {Write(n)}"));
        return text.Append("\n  ]\n}\n").ToString();
    }

    public static Network Read(ReadOnlyMemory<byte> utf8)
    {
        try
        {
            var options = new JsonDocumentOptions { AllowTrailingCommas = true, CommentHandling = JsonCommentHandling.Skip, AllowDuplicateProperties = false };
            using JsonDocument document = JsonDocument.Parse(utf8, options);
            return Read(document.RootElement);
        }
        catch (JsonException e)
        {
            throw new UserErrorException($"The network file is not JSON as it should be: {e.Message}", e);
        }
        catch (Exception e) when (e is ArgumentException or OverflowException)
        {
            throw new UserErrorException(e.Message, e);
        }
        catch (InvalidOperationException e)
        {
            // A text with half a character in it.
            throw new UserErrorException($"The network file has a text that is none: {e.Message}", e);
        }
    }

    private static string Write(Node node)
    {
        using var bytes = new MemoryStream();
        using (var json = new Utf8JsonWriter(bytes, new JsonWriterOptions { Encoder = Encoder }))
        {
            json.WriteStartObject();
            json.WriteString("name", node.Name);
            json.WriteString("type", node.Layer.Type);
            if (node.Inputs.Count > 0)
            {
                json.WriteStartArray("inputs");
                foreach (Node input in node.Inputs)
                {
                    json.WriteStringValue(input.Name);
                }

                json.WriteEndArray();
            }

            LayerTypes.Write(node.Name, node.Layer, new LayerWriter(json));
            json.WriteEndObject();
        }

        return Encoding.UTF8.GetString(bytes.GetBuffer(), 0, (int)bytes.Length);
    }

    private static Network Read(JsonElement root)
    {
        const string Where = "The network file";
        Expect(root, JsonValueKind.Object, Where, "an object");
        string? format = Text(root, "format", Where, required: false);
        if (format != Format)
        {
            throw new UserErrorException($"The file is not a network file: its \"format\" is {(format is null ? "missing" : $"'{format}'")}; expected '{Format}'.");
        }

        // The version first: a file of another one may hold what this one does not know.
        int? version = Whole(root, "version", Where);
        if (version != Version)
        {
            throw new UserErrorException(
                $"The network file has {(version is null ? "no version" : $"version {version}")}; this library reads version {Version}. Write it anew, or use a library that knows it.");
        }

        CheckKeys(root, Where, "format", "version", "name", "minimum_image_size", "layers");
        string name = Text(root, "name", Where, required: true)!;
        string where = $"Network '{name}'";
        int? minimum = Whole(root, "minimum_image_size", where);
        if (!root.TryGetProperty("layers", out JsonElement layers))
        {
            throw new UserErrorException($"{where} has no \"layers\". Write them as an array of objects, inputs before what reads them.");
        }

        Expect(layers, JsonValueKind.Array, $"{where}: \"layers\"", "an array");
        var builder = new NetworkBuilder(name);
        Dictionary<string, Node> nodes = new(StringComparer.Ordinal);
        Node? previous = null;
        foreach (JsonElement element in layers.EnumerateArray())
        {
            previous = Add(builder, nodes, previous, element, where);
        }

        return minimum is < 1
            ? throw new UserErrorException($"{where}: \"minimum_image_size\" is {minimum}; it must be at least 1.")
            : builder.Build(minimum);
    }

    private static Node Add(NetworkBuilder builder, Dictionary<string, Node> nodes, Node? previous, JsonElement element, string network)
    {
        string where = $"{network}, the layer after {(previous is null ? "its beginning" : $"'{previous.Name}'")}";
        Expect(element, JsonValueKind.Object, where, "an object");
        string name = Text(element, "name", where, required: true)!;
        where = $"{network}, layer '{name}'";
        CheckKeys(element, where, "name", "type", "inputs", "attributes");
        string type = Text(element, "type", where, required: true)!;
        JsonElement? attributes = null;
        if (element.TryGetProperty("attributes", out JsonElement given))
        {
            Expect(given, JsonValueKind.Object, $"{where}: \"attributes\"", "an object");
            attributes = given;
        }

        Layer layer = LayerTypes.Read(new LayerReader(name, type, attributes));
        List<Node> inputs = [];
        if (element.TryGetProperty("inputs", out JsonElement names))
        {
            Expect(names, JsonValueKind.Array, $"{where}: \"inputs\"", "an array of names");
            inputs.AddRange(names.EnumerateArray().Select(i => Find(nodes, i, where)));
        }
        else if (layer.MinimumInputs > 0 && previous is not null)
        {
            inputs.Add(previous);
        }

        Node node = builder.Add(name, layer, inputs);
        nodes.Add(name, node);
        return node;
    }

    private static Node Find(Dictionary<string, Node> nodes, JsonElement input, string where)
    {
        Expect(input, JsonValueKind.String, $"{where}: one of its \"inputs\"", "a name");
        string name = input.GetString()!;
        return nodes.TryGetValue(name, out Node? node)
            ? node
            : throw new UserErrorException($"{where} reads '{name}', which is no layer above it{NearestName.HintOrStop(name, nodes.Keys)} Layers stand after what they read.");
    }

    private static void CheckKeys(JsonElement element, string where, params string[] known)
    {
        foreach (JsonProperty property in element.EnumerateObject())
        {
            if (!known.Contains(property.Name))
            {
                throw new UserErrorException($"{where} has \"{property.Name}\", which is not known{NearestName.HintOrStop(property.Name, known)} Known: {string.Join(", ", known)}.");
            }
        }
    }

    private static string? Text(JsonElement element, string key, string where, bool required)
    {
        if (!element.TryGetProperty(key, out JsonElement value))
        {
            return !required ? null : throw new UserErrorException($"{where} has no \"{key}\", a text, which it needs.");
        }

        Expect(value, JsonValueKind.String, $"{where}: \"{key}\"", "a text");
        return value.GetString();
    }

    private static int? Whole(JsonElement element, string key, string where)
    {
        if (!element.TryGetProperty(key, out JsonElement value))
        {
            return null;
        }

        return value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out int whole)
            ? whole
            : throw new UserErrorException($"{where}: \"{key}\" is {value.GetRawText()}; expected a whole number.");
    }

    private static void Expect(JsonElement element, JsonValueKind kind, string what, string expected)
    {
        if (element.ValueKind != kind)
        {
            throw new UserErrorException($"{what} is {Shown(element)}; expected {expected}.");
        }

        static string Shown(JsonElement element) => element.ValueKind switch
        {
            JsonValueKind.Object => "an object",
            JsonValueKind.Array => "an array",
            _ => element.GetRawText(),
        };
    }
}
