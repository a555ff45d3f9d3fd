using System.Diagnostics;
using System.Net.WebSockets;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace HpcBatchNorm.Tests.Support;

/// <summary>A headless Chromium with one page, driven over its DevTools protocol. What the page logs as an error is kept in <see cref="Errors"/>.</summary>
internal sealed class Browser : IAsyncDisposable
{
    private static readonly string[] Names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

    private readonly Process _process;
    private readonly string _profile;
    private readonly ClientWebSocket _socket = new();
    private readonly byte[] _buffer = new byte[1 << 16];
    private readonly List<JsonElement> _events = [];
    private int _id;

    private Browser(Process process, string profile) => (_process, _profile) = (process, profile);

    /// <summary>What went wrong in the page: exceptions, failed loads, <c>console.error</c>.</summary>
    public IEnumerable<string> Errors => _events.Where(IsError).Select(e => e.GetRawText());

    /// <summary>Starts the browser; skips the calling test, saying why, where there is none.</summary>
    public static async Task<Browser> StartOrSkipAsync(CancellationToken token)
    {
        string? executable = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator)
            .SelectMany(folder => Names.Select(name => Path.Combine(folder, name))).FirstOrDefault(File.Exists);
        Assert.SkipWhen(executable is null, $"needs a browser: one of {string.Join(", ", Names)} on the PATH (Debian: apt-get install chromium)");
        string profile = Directory.CreateTempSubdirectory("hpcbn-browser").FullName;
        var start = new ProcessStartInfo(executable!,
        [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--hide-scrollbars",
            "--remote-debugging-port=0", $"--user-data-dir={profile}", "about:blank",
        ])
        {
            RedirectStandardError = true,
        };
        var browser = new Browser(Process.Start(start)!, profile);
        try
        {
            await browser.ConnectAsync(token);
            return browser;
        }
        catch
        {
            await browser.DisposeAsync();
            throw;
        }
    }

    /// <summary>Opens an address and waits until it is loaded.</summary>
    public async Task OpenAsync(string address, CancellationToken token)
    {
        int seen = _events.Count;
        await SendAsync("Page.navigate", new JsonObject { ["url"] = address }, token);
        while (!_events.Skip(seen).Any(e => e.GetProperty("method").GetString() == "Page.loadEventFired"))
        {
            await ReceiveAsync(token);
        }
    }

    /// <summary>Sets the size of the window in CSS pixels, and whether it is a phone's, and the colour scheme.</summary>
    public async Task ResizeAsync(int width, int height, bool dark, CancellationToken token)
    {
        await SendAsync("Emulation.setDeviceMetricsOverride",
            new JsonObject { ["width"] = width, ["height"] = height, ["deviceScaleFactor"] = 1, ["mobile"] = width < 600 }, token);
        await SendAsync("Emulation.setEmulatedMedia",
            new JsonObject { ["features"] = new JsonArray(new JsonObject { ["name"] = "prefers-color-scheme", ["value"] = dark ? "dark" : "light" }) }, token);
    }

    /// <summary>The value of a JavaScript expression; a promise is awaited.</summary>
    public async Task<JsonElement> EvaluateAsync(string expression, CancellationToken token)
    {
        JsonElement result = await SendAsync("Runtime.evaluate",
            new JsonObject { ["expression"] = expression, ["returnByValue"] = true, ["awaitPromise"] = true }, token);
        Assert.False(result.TryGetProperty("exceptionDetails", out JsonElement details), details.ValueKind == JsonValueKind.Undefined ? "" : details.GetRawText());
        return result.GetProperty("result").TryGetProperty("value", out JsonElement value) ? value : default;
    }

    /// <summary>Waits until an expression is true.</summary>
    public async Task WaitForAsync(string expression, CancellationToken token)
    {
        var watch = Stopwatch.StartNew();
        while (!(await EvaluateAsync(expression, token)).GetBoolean())
        {
            Assert.True(watch.Elapsed < TimeSpan.FromSeconds(30), $"not within 30 s: {expression}; the page's errors: {string.Join('\n', Errors)}");
            await Task.Delay(100, token);
        }
    }

    /// <summary>Writes a picture of the whole page, for people to look at.</summary>
    public async Task ScreenshotAsync(string name, CancellationToken token)
    {
        JsonElement picture = await SendAsync("Page.captureScreenshot", new JsonObject { ["format"] = "png", ["captureBeyondViewport"] = true }, token);
        await SaveAsync($"{name}.png", picture, token);
    }

    /// <summary>Prints the page on A4 to a PDF; returns its bytes.</summary>
    public async Task<byte[]> PrintAsync(string name, CancellationToken token)
    {
        JsonElement pdf = await SendAsync("Page.printToPDF", new JsonObject { ["paperWidth"] = 8.27, ["paperHeight"] = 11.69, ["preferCSSPageSize"] = true }, token);
        return await SaveAsync($"{name}.pdf", pdf, token);
    }

    public async ValueTask DisposeAsync()
    {
        _socket.Dispose();
        if (!_process.HasExited)
        {
            _process.Kill(entireProcessTree: true);
            await _process.WaitForExitAsync();
        }

        _process.Dispose();
        for (int attempt = 0; Directory.Exists(_profile); attempt++)
        {
            try
            {
                Directory.Delete(_profile, recursive: true);
            }
            catch (IOException) when (attempt < 20)
            {
                // A process of the browser's may still be writing.
                await Task.Delay(100);
            }
        }
    }

    private static async Task<byte[]> SaveAsync(string name, JsonElement answer, CancellationToken token)
    {
        string folder = Directory.CreateDirectory(RepoPaths.InRepo("artifacts", "screenshots")).FullName;
        byte[] bytes = answer.GetProperty("data").GetBytesFromBase64();
        await File.WriteAllBytesAsync(Path.Combine(folder, name), bytes, token);
        return bytes;
    }

    private async Task ConnectAsync(CancellationToken token)
    {
        // "DevTools listening on ws://127.0.0.1:41234/devtools/browser/..."
        const string Marker = "listening on ws://";
        string address = "";
        while (address.Length == 0)
        {
            string line = await _process.StandardError.ReadLineAsync(token) ?? throw new InvalidOperationException("The browser ended before it could be driven.");
            int at = line.IndexOf(Marker, StringComparison.Ordinal);
            address = at < 0 ? "" : line[(at + Marker.Length)..].Split('/')[0];
        }

        // Whatever it says from now on must not fill the pipe.
        _ = _process.StandardError.ReadToEndAsync(CancellationToken.None);
        using var http = new HttpClient();
        using JsonDocument pages = JsonDocument.Parse(await http.GetStringAsync($"http://{address}/json/list", token));
        JsonElement page = pages.RootElement.EnumerateArray().First(p => p.GetProperty("type").GetString() == "page");
        await _socket.ConnectAsync(new Uri(page.GetProperty("webSocketDebuggerUrl").GetString()!), token);
        foreach (string domain in new[] { "Page", "Runtime", "Log" })
        {
            await SendAsync($"{domain}.enable", [], token);
        }
    }

    private async Task<JsonElement> SendAsync(string method, JsonObject parameters, CancellationToken token)
    {
        int id = ++_id;
        var request = new JsonObject { ["id"] = id, ["method"] = method, ["params"] = parameters };
        await _socket.SendAsync(JsonSerializer.SerializeToUtf8Bytes(request), WebSocketMessageType.Text, endOfMessage: true, token);
        while (true)
        {
            JsonElement message = await ReceiveAsync(token);
            if (message.TryGetProperty("id", out JsonElement answered) && answered.GetInt32() == id)
            {
                Assert.False(message.TryGetProperty("error", out JsonElement error), $"{method}: {error}");
                return message.GetProperty("result");
            }
        }
    }

    /// <summary>The next message; events are kept.</summary>
    private async Task<JsonElement> ReceiveAsync(CancellationToken token)
    {
        using var message = new MemoryStream();
        ValueWebSocketReceiveResult part;
        do
        {
            part = await _socket.ReceiveAsync(_buffer.AsMemory(), token);
            message.Write(_buffer, 0, part.Count);
        }
        while (!part.EndOfMessage);

        using JsonDocument document = JsonDocument.Parse(message.GetBuffer().AsMemory(0, (int)message.Length));
        JsonElement root = document.RootElement.Clone();
        if (root.TryGetProperty("method", out _))
        {
            _events.Add(root);
        }

        return root;
    }

    private static bool IsError(JsonElement message)
    {
        JsonElement parameters = message.GetProperty("params");
        return message.GetProperty("method").GetString() switch
        {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => parameters.GetProperty("type").GetString() is "error" or "assert" or "warning",
            "Log.entryAdded" => parameters.GetProperty("entry").GetProperty("level").GetString() is "error" or "warning",
            _ => false,
        };
    }
}
