using System.Net;
using System.Text;
using System.Text.Json;

namespace HpcBatchNorm.Reporting;

/// <summary>
/// The part of a run's page that shows single images: what <see cref="PredictionLog"/> wrote. The file may have been changed or damaged since; a part of it
/// that is not as it was written is left out, and nothing of it reaches the page but numbers, encoded text and JPEG data.
/// </summary>
internal static class PredictionSection
{
    private static ReadOnlySpan<byte> StartOfJpeg => [0xFF, 0xD8, 0xFF];

    public static void Append(StringBuilder html, string json)
    {
        if (json.Length == 0)
        {
            return;
        }

        try
        {
            using JsonDocument document = JsonDocument.Parse(json);
            if (document.RootElement.ValueKind == JsonValueKind.Object)
            {
                Append(html, document.RootElement);
            }
        }
        catch (JsonException)
        {
            html.Append("<h2>Predictions</h2>\n<p class=\"note\">predictions.json is damaged; the next evaluation writes it anew.</p>\n");
        }
    }

    private static void Append(StringBuilder html, JsonElement root)
    {
        html.Append("<h2>Predictions</h2>\n<p class=\"note\">Validation images as the network sees them, with its three most probable classes")
            .Append(Invariant($"; after step {Whole(root, "step")}. The true class is green.</p>\n"));
        AppendPictures(html, "The same images at every evaluation", Objects(root, "spread"));
        AppendPictures(html, "Most confident mistakes", Objects(root, "mistakes"));
        html.Append("<div class=\"columns\">\n<div><h3>Classes with the lowest accuracy</h3><div class=\"scroll\"><table><tr><th class=\"text\">class</th><th>right</th><th>top-1 %</th></tr>\n");
        foreach (JsonElement row in Objects(root, "worst_classes"))
        {
            (long right, long images) = (Whole(row, "right"), Whole(row, "images"));
            html.Append(Invariant($"<tr><td class=\"text\">{Text(row, "class")}</td><td>{right} of {images}</td><td>{(images > 0 ? 100.0 * right / images : 0):0.0}</td></tr>\n"));
        }

        html.Append("</table></div></div>\n<div><h3>Confused most often</h3><div class=\"scroll\"><table><tr><th class=\"text\">class</th><th class=\"text\">taken for</th><th>images</th></tr>\n");
        foreach (JsonElement row in Objects(root, "confusions"))
        {
            html.Append(Invariant($"<tr><td class=\"text\">{Text(row, "class")}</td><td class=\"text\">{Text(row, "predicted")}</td><td>{Whole(row, "count")} of {Whole(row, "images")}</td></tr>\n"));
        }

        html.Append("</table></div></div>\n</div>\n");
    }

    private static void AppendPictures(StringBuilder html, string title, JsonElement[] predictions)
    {
        if (predictions.Length == 0)
        {
            return;
        }

        html.Append("<h3>").Append(title).Append("</h3>\n<div class=\"pictures\">\n");
        foreach (JsonElement prediction in predictions)
        {
            JsonElement[] top = Objects(prediction, "top");
            string label = Text(prediction, "class");
            html.Append("<div class=\"picture").Append(top.Length > 0 && IsRight(top[0]) ? " right" : "").Append("\">");
            if (prediction.TryGetProperty("jpeg", out JsonElement jpeg) && jpeg.ValueKind == JsonValueKind.String
                && jpeg.TryGetBytesFromBase64(out byte[]? bytes) && bytes.AsSpan().StartsWith(StartOfJpeg))
            {
                html.Append(Invariant($"<img src=\"data:image/jpeg;base64,{Convert.ToBase64String(bytes)}\" alt=\"{label}\" title=\"{Text(prediction, "image")}\">"));
            }

            html.Append("<div><b>").Append(label).Append("</b><ol>");
            foreach (JsonElement guess in top)
            {
                double percent = 100 * Math.Clamp(Real(guess, "probability"), 0, 1);
                html.Append(Invariant($"<li{(IsRight(guess) ? " class=\"label\"" : "")} style=\"--p:{percent:0.#}%\"><span>{Text(guess, "class")}</span> {percent:0.#}%</li>"));
            }

            html.Append("</ol></div></div>\n");
        }

        html.Append("</div>\n");
    }

    private static JsonElement[] Objects(JsonElement element, string name) =>
        element.TryGetProperty(name, out JsonElement list) && list.ValueKind == JsonValueKind.Array ? [.. list.EnumerateArray().Where(e => e.ValueKind == JsonValueKind.Object)] : [];

    private static bool IsRight(JsonElement guess) => guess.TryGetProperty("right", out JsonElement right) && right.ValueKind == JsonValueKind.True;

    private static double Real(JsonElement element, string name) =>
        element.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out double number) && double.IsFinite(number) ? number : 0;

    private static long Whole(JsonElement element, string name) => (long)Math.Clamp(Real(element, name), -1e15, 1e15);

    private static string Text(JsonElement element, string name)
    {
        try
        {
            return WebUtility.HtmlEncode(element.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.String ? value.GetString()! : "");
        }
        catch (InvalidOperationException)
        {
            // Half a character.
            return "";
        }
    }

    private static string Invariant(FormattableString text) => FormattableString.Invariant(text);
}
