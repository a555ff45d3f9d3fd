using System.Net;
using System.Security.Cryptography;
using System.Text;

namespace HpcBatchNorm.Reporting;

/// <summary>The frame of every page: one document with its style and script inside, nothing to load.</summary>
internal static class WebPage
{
    private const string Icon =
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M1 14C5 14 5 2 8 2s3 12 7 12' fill='none' stroke='%231769aa' stroke-width='2'/%3E%3C/svg%3E";

    private const int NonceBytes = 16;

    private static readonly Lazy<string> Style = new(() => Resource("page.css")), Script = new(() => Resource("page.js"));

    /// <summary>A page.</summary>
    /// <param name="title">Its title, plain text.</param>
    /// <param name="main">Its content, HTML.</param>
    /// <param name="version">What changes with the content; with <paramref name="refreshSeconds"/>.</param>
    /// <param name="refreshSeconds">Seconds between looks for a newer version; 0 for a page that stays as it is.</param>
    /// <returns>The document, and the content security policy that it should be sent with.</returns>
    public static (string Html, string Policy) Render(string title, string main, string version = "", int refreshSeconds = 0)
    {
        // A file that is the same whenever it is written; nobody can put into it a text that holds the hash of the whole.
        byte[] once = refreshSeconds > 0 ? RandomNumberGenerator.GetBytes(NonceBytes) : SHA256.HashData(Encoding.UTF8.GetBytes(title + main))[..NonceBytes];
        string nonce = Convert.ToBase64String(once), policy = Policy(nonce);
        string html = new StringBuilder()
        .Append("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"Content-Security-Policy\" content=\"").Append(policy)
        .Append("\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>")
        .Append(WebUtility.HtmlEncode(title)).Append("</title>\n<link rel=\"icon\" href=\"").Append(Icon).Append("\">\n<style nonce=\"").Append(nonce).Append("\">\n").Append(Style.Value)
        .Append("</style></head>\n<body><main").Append(refreshSeconds > 0 ? FormattableString.Invariant($" data-refresh-seconds=\"{refreshSeconds}\" data-version=\"{version}\"") : "")
        .Append(">\n").Append(main).Append("</main>\n<script nonce=\"").Append(nonce).Append("\">\n").Append(Script.Value).Append("</script></body></html>\n").ToString();
        return (html, policy + "; frame-ancestors 'none'");
    }

    /// <summary>
    /// Nothing but what is in the page itself, and of that no script but the one with this page's number that is used once: whatever a run's files say, a
    /// browser runs none of it. Styles in attributes are numbers that colours and bars are made of.
    /// </summary>
    private static string Policy(string nonce) =>
        $"default-src 'none'; style-src 'nonce-{nonce}'; style-src-attr 'unsafe-inline'; script-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'";

    /// <summary>A file of the folder <c>Web</c>.</summary>
    internal static string Resource(string name)
    {
        using Stream stream = typeof(WebPage).Assembly.GetManifestResourceStream($"HpcBatchNorm.Reporting.Web.{name}")!;
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    }
}
