using System.Net;
using System.Net.NetworkInformation;
using HpcBatchNorm.Cli;
using HpcBatchNorm.Reporting;
using HpcBatchNorm.Tests.Cli;

namespace HpcBatchNorm.Tests.Reporting;

public sealed class DashboardTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("hpcbn-dashboard").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task Pages_ShowRunsAsTheyAre_AndSayWhenNothingChanged()
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        var a = new WrittenRun(Path.Combine(_folder, "a"), "net, a", 1000, 0);
        a.Log(20);
        new WrittenRun(Path.Combine(_folder, "group", "b & c"), "net, b", 1000, 1).End("completed");
        using var server = new Served(_folder);

        string index = await server.Http.GetStringAsync("/", token);
        Assert.Contains("href=\"/run?name=a\"", index, StringComparison.Ordinal);
        Assert.Contains("href=\"/run?name=group%2Fb%20%26%20c\"", index, StringComparison.Ordinal);
        Assert.Contains(">complete<", index, StringComparison.Ordinal);
        Assert.Contains("official &lt;archives&gt;", await server.Http.GetStringAsync("/run?name=group%2Fb%20%26%20c", token), StringComparison.Ordinal);

        using HttpResponseMessage first = await server.Http.GetAsync("/run?name=a", token);
        string version = Assert.Single(first.Headers.GetValues("X-Version"));
        Assert.Equal(HttpStatusCode.NoContent, (await server.Http.GetAsync($"/run?name=a&since={version}", token)).StatusCode);
        a.Log(20);
        using HttpResponseMessage second = await server.Http.GetAsync($"/run?name=a&since={version}", token);
        Assert.Equal(HttpStatusCode.OK, second.StatusCode);
        Assert.Contains("step 40 of 1000", await second.Content.ReadAsStringAsync(token), StringComparison.Ordinal);

        // A run that begins later is there at the next look.
        new WrittenRun(Path.Combine(_folder, "later"), "net, later", 1000, 2).Log(20);
        Assert.Contains("/run?name=later", await server.Http.GetStringAsync("/", token), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Server_AnswersThisMachineOnly_AndServesNoFiles()
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        new WrittenRun(Path.Combine(_folder, "a"), "net, a", 1000, 0).Log(20);
        using var server = new Served(_folder);

        Assert.All(IPGlobalProperties.GetIPGlobalProperties().GetActiveTcpListeners().Where(l => l.Port == server.Port), l => Assert.True(IPAddress.IsLoopback(l.Address), l.ToString()));
        foreach (string path in new[] { "/run?name=../a", $"/run?name={Uri.EscapeDataString(Path.Combine(_folder, "a"))}", "/a/metrics.jsonl", "/run", "/..%2fa" })
        {
            Assert.Equal(HttpStatusCode.NotFound, (await server.Http.GetAsync(path, token)).StatusCode);
        }

        Assert.Equal(HttpStatusCode.MethodNotAllowed, (await server.Http.PostAsync("/", new StringContent(""), token)).StatusCode);
        // A page from elsewhere whose name was made to point here (DNS rebinding).
        using var other = new HttpClient();
        using var foreign = new HttpRequestMessage(HttpMethod.Get, server.Address) { Headers = { Host = "evil.example" } };
        Assert.NotEqual(HttpStatusCode.OK, (await other.SendAsync(foreign, token)).StatusCode);
        using HttpResponseMessage page = await server.Http.GetAsync("/", token);
        Assert.Contains("default-src 'none'", Assert.Single(page.Headers.GetValues("Content-Security-Policy")), StringComparison.Ordinal);
    }

    [Fact]
    public void Mistakes_AreNamed()
    {
        using var server = new Served(_folder);

        UserErrorException port = Assert.Throws<UserErrorException>(() => new Dashboard([_folder], server.Port));
        Assert.Contains("Choose another port", port.Message, StringComparison.Ordinal);
        UserErrorException folder = Assert.Throws<UserErrorException>(() => new Dashboard(["nowhere"], 0));
        Assert.Contains("'nowhere'", folder.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("INT")]
    [InlineData("TERM")]
    [Trait("Category", "Slow")]
    public async Task Command_SaysWhereItIs_AndStopsWhenAsked(string signal)
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        new WrittenRun(Path.Combine(_folder, "runs", "a"), "net, a", 1000, 0).Log(20);
        using HpcbnProcess process = HpcbnProcess.Start(_folder, ["dashboard", "--port", "0"]);
        await process.WaitForAsync("Ctrl-C stops", token);

        string address = process.Output.Split(' ').First(w => w.StartsWith("http", StringComparison.Ordinal));
        using var http = new HttpClient();
        Assert.Contains("/run?name=a", await http.GetStringAsync(address, token), StringComparison.Ordinal);

        process.Signal(signal);
        Assert.Equal(ExitCode.Done, await process.WaitForExitAsync(token));
    }
}

/// <summary>A dashboard on a free port, served by another thread.</summary>
internal sealed class Served : IDisposable
{
    private readonly Dashboard _dashboard;
    private readonly CancellationTokenSource _stop = new();
    private readonly Thread _thread;

    public Served(params string[] roots)
    {
        _dashboard = new Dashboard(roots, 0);
        Http = new HttpClient { BaseAddress = new Uri(_dashboard.Address) };
        _thread = new Thread(() => _dashboard.Run(_stop.Token));
        _thread.Start();
    }

    public HttpClient Http { get; }

    public int Port => _dashboard.Port;

    public string Address => _dashboard.Address;

    public void Dispose()
    {
        _stop.Cancel();
        _thread.Join();
        _dashboard.Dispose();
        _stop.Dispose();
        Http.Dispose();
    }
}
