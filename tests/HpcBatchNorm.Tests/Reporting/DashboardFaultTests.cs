using System.Diagnostics;
using System.Net;
using System.Text;
using System.Text.RegularExpressions;
using HpcBatchNorm.Reporting;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Reporting;

/// <summary>Whatever one run's files say, the others are shown, and nothing of it is run by a browser.</summary>
public sealed class DashboardFaultTests : IDisposable
{
    private const string Script = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">";

    private readonly string _folder = Directory.CreateTempSubdirectory("hpcbn-dashboard-fault").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    public static TheoryData<string, string, string> BadFiles => new()
    {
        { "metrics.jsonl", "[1]\n", "no object" },
        { "metrics.jsonl", "null\n\"type\"\n1e999\n{\"type\":[1]}\n{\"type\":\"train\",\"step\":\"1\"}\n{\"type\":\"\\ud800\"}\n", "other values" },
        { "metrics.jsonl", "{\"type\":\"train\",\"step\":1e300,\"epoch\":-1e308,\"loss\":1e308,\"learning_rate\":1e-320}\n{\"type\":\"train\",\"step\":2,\"epoch\":1e308,\"loss\":-1e308}\n", "wild numbers" },
        { "metrics.jsonl", "{\"type\":\"batch_norm\",\"layers\":[1,{},{\"name\":\"a\",\"channels\":1e300,\"quiet_channels\":1e300,\"shift\":1}]}\n{\"type\":\"batch_norm\",\"layers\":[{\"shift\":1}]}\n", "wild layers" },
        { "predictions.json", "{\"step\":1,\"spread\":[{\"top\":[]}],\"mistakes\":[],\"worst_classes\":[],\"confusions\":[]}", "an empty list" },
        { "predictions.json", "{}", "nothing" },
        { "predictions.json", "[1]", "no object" },
        { "predictions.json", "{\"spread\":{},\"mistakes\":[[]],\"worst_classes\":[{\"class\":1,\"images\":0}],\"confusions\":[{\"class\":\"\\udc00\"}]}", "other values" },
        { "predictions.json", "{\"spread\":[{\"class\":\"a\",\"top\":[{\"probability\":1e999,\"right\":1}],\"jpeg\":7}]", "cut short" },
    };

    [Theory]
    [MemberData(nameof(BadFiles))]
    public async Task OneRunWithABadFile_DoesNotKeepOthersFromBeingShown(string file, string content, string why)
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        new WrittenRun(Path.Combine(_folder, "good"), "net, a", 1000, 0).Log(20);
        new WrittenRun(Path.Combine(_folder, "bad"), "net, b", 1000, 0).Log(20);
        await File.AppendAllTextAsync(Path.Combine(_folder, "bad", file), content, token);
        using var server = new Served(_folder);
        foreach (string page in (string[])["/", "/run?name=good", "/run?name=bad", "/"])
        {
            using HttpResponseMessage answer = await server.Http.GetAsync(page, token);
            string text = await answer.Content.ReadAsStringAsync(token);
            Assert.True(answer.StatusCode == HttpStatusCode.OK, $"{why}, {page}: {text}");
            Assert.Contains("20", text, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task RunsThatCannotBeRead_AreNamedAndTheOthersShown()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "needs named pipes");
        CancellationToken token = TestContext.Current.CancellationToken;
        new WrittenRun(Path.Combine(_folder, "good"), "net, a", 1000, 0).Log(20);
        Directory.CreateDirectory(Path.Combine(_folder, "pipe"));
        Run("mkfifo", Path.Combine(_folder, "pipe", "metrics.jsonl"));
        new WrittenRun(Path.Combine(_folder, "pipes"), "net, b", 1000, 0).Log(20);
        Run("mkfifo", Path.Combine(_folder, "pipes", RunFolder.PredictionsName));
        File.Delete(Path.Combine(_folder, "pipes", "config.yaml"));
        Run("mkfifo", Path.Combine(_folder, "pipes", "config.yaml"));
        using var server = new Served(_folder);
        string index = await server.Http.GetStringAsync("/", token);
        Assert.Contains("/run?name=good", index, StringComparison.Ordinal);
        Assert.DoesNotContain("name=pipe\"", index, StringComparison.Ordinal);
        Assert.Contains("step 20 of 1000", await server.Http.GetStringAsync("/run?name=pipes", token), StringComparison.Ordinal);

        // One that becomes unreadable while it is looked at.
        string metrics = Path.Combine(_folder, "good", "metrics.jsonl");
        File.Delete(metrics);
        Directory.CreateDirectory(metrics);
        Assert.DoesNotContain("/run?name=good", await server.Http.GetStringAsync("/", token), StringComparison.Ordinal);
    }

    [Fact]
    public async Task ValuesWithMarkup_AreTextOrLeftOut()
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        WriteMarkup("a");
        using var server = new Served(_folder);
        foreach (string address in (string[])["/", "/run?name=a"])
        {
            using HttpResponseMessage answer = await server.Http.GetAsync(address, token);
            string page = await answer.Content.ReadAsStringAsync(token);
            Assert.DoesNotContain("document.title='", page, StringComparison.Ordinal);
            Assert.DoesNotContain("<script>", page, StringComparison.Ordinal);
            Assert.DoesNotContain("<img src=x", page, StringComparison.Ordinal);
            Assert.DoesNotContain("onerror=\"", page, StringComparison.Ordinal);

            // The policy names the one script there is, by a number that is another at every answer, and no other.
            string policy = Assert.Single(answer.Headers.GetValues("Content-Security-Policy"));
            string nonce = Regex.Match(policy, "script-src 'nonce-([^']+)';").Groups[1].Value;
            Assert.True(nonce.Length >= 22, policy);
            Assert.DoesNotContain("script-src 'unsafe-inline'", policy, StringComparison.Ordinal);
            Assert.Equal([nonce], Regex.Matches(page, "<script nonce=\"([^\"]+)\">").Select(match => match.Groups[1].Value));
            Assert.All(Regex.Matches(page, "<script[^>]*>").Select(match => match.Value), tag => Assert.Matches("nonce=|application/json", tag));
            using HttpResponseMessage again = await server.Http.GetAsync(address, token);
            Assert.DoesNotContain(nonce, Assert.Single(again.Headers.GetValues("Content-Security-Policy")), StringComparison.Ordinal);
        }
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task Browser_RunsNothingOfARun()
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        await using Browser browser = await Browser.StartOrSkipAsync(token);
        WriteMarkup("a");
        using var server = new Served(_folder);
        await browser.OpenAsync($"{server.Address}run?name=a", token);
        Assert.NotEqual("owned", (await browser.EvaluateAsync("document.title", token)).GetString());

        // Even markup that got into a page is not run, neither when it is loaded nor when a refresh brings it in.
        await browser.EvaluateAsync($"document.querySelector('main').innerHTML = {System.Text.Json.JsonSerializer.Serialize(Script)}; const s = document.createElement('script'); s.textContent = \"document.title='owned'\"; document.body.append(s)", token);
        await Task.Delay(500, token);
        Assert.NotEqual("owned", (await browser.EvaluateAsync("document.title", token)).GetString());
    }

    [Fact]
    public void LongLog_IsReadFromItsEndAndOnce()
    {
        string path = Path.Combine(_folder, "metrics.jsonl");
        var text = new StringBuilder("{\"type\":\"start\",\"step\":0,\"title\":\"a\",\"total_steps\":100000}\n");
        for (int i = 1; i <= 20_000; i++)
        {
            text.Append(System.Globalization.CultureInfo.InvariantCulture, $"{{\"type\":\"train\",\"step\":{i},\"epoch\":{i},\"loss\":1}}\n");
        }

        File.WriteAllText(path, text.ToString());
        var log = new RunLog(path, mostBytes: 100_000);
        long before = GC.GetAllocatedBytesForCurrentThread();
        log.Update();
        Assert.Equal("a", log.Start!.Title);
        Assert.Equal(20_000, log.Train[^1].Step);
        Assert.InRange(log.Train.Count, 100_000 / 60, 100_000 / 40);
        Assert.Equal(log.Train.Count, (int)(log.Train[^1].Step - log.Train[0].Step + 1));
        Assert.Equal(new FileInfo(path).Length - 100_000, log.Skipped);
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 20_000_000);

        int lines = log.Train.Count;
        File.AppendAllText(path, "{\"type\":\"train\",\"step\":20001,\"epoch\":2,\"loss\":1}\n{\"type\":\"tr");
        log.Update();
        Assert.Equal((lines + 1, 20_001L), (log.Train.Count, log.Train[^1].Step));
        File.AppendAllText(path, "ain\",\"step\":20002,\"epoch\":2,\"loss\":1}\n");
        Assert.Equal(20_002, log.Update().Train[^1].Step);
    }

    [Fact]
    public void LongLine_IsPassedOverInBoundedMemory()
    {
        string path = Path.Combine(_folder, "metrics.jsonl");
        using (var file = new FileStream(path, FileMode.Create))
        {
            file.Write("{\"type\":\"train\",\"step\":1}\n"u8);
            byte[] block = new byte[1 << 20];
            Array.Fill(block, (byte)'x');
            for (int i = 0; i < 200; i++)
            {
                file.Write(block);
            }

            file.Write("\n{\"type\":\"train\",\"step\":2}\n"u8);
        }

        long before = GC.GetAllocatedBytesForCurrentThread();
        Assert.Equal([1L, 2L], new RunLog(path).Update().Train.Select(t => t.Step));
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 30_000_000);
    }

    [Fact]
    public void Resume_WithLinesThatAreNone_DropsThemAndGoesOn()
    {
        string folder = Path.Combine(_folder, "run"), metrics = Path.Combine(folder, "metrics.jsonl");
        Directory.CreateDirectory(folder);
        string[] good = ["{\"type\":\"start\",\"step\":0}", "{\"type\":\"train\",\"step\":20}", "{\"type\":\"note\"}"];
        File.WriteAllLines(metrics, [good[0], "[1]", good[1], "null", "{\"type\":\"eval\",\"step\":1e300}", "{\"type\":\"\\ud800\",\"step\":1}", "{\"type\":[\"eval\"],\"step\":\"x\"}", "{\"type\":\"train\",\"step\":40}", good[2], "{\"type\":\"tr"]);
        new RunDirectory(folder, firstStep: 20, evaluatedStep: 20).Dispose();
        Assert.Equal([good[0], good[1], "{\"type\":[\"eval\"],\"step\":\"x\"}", good[2]], File.ReadAllLines(metrics));
    }

    private static void Run(string program, string argument)
    {
        using Process process = Process.Start(program, argument);
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }

    /// <summary>A run that has markup wherever a file can have a text.</summary>
    private void WriteMarkup(string name)
    {
        string folder = Path.Combine(_folder, name), quoted = System.Text.Json.JsonSerializer.Serialize(Script);
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, "metrics.jsonl"), $$"""
            {"type":"start","step":0,"title":{{quoted}},"total_steps":10,"machine":{{quoted}},"facts":{ {{quoted}}:{{quoted}} } }
            {"type":"train","step":1,"epoch":1,"loss":1}
            {"type":"eval","step":{{quoted}},"epoch":{{quoted}},"val_top1":0.5}
            {"type":"batch_norm","step":1,"epoch":1,"since_step":{{quoted}},"layers":[{"name":{{quoted}},"channels":{{quoted}},"shift":0.5}]}
            {"type":"end","outcome":{{quoted}} }

            """);
        File.WriteAllText(Path.Combine(folder, "config.yaml"), Script);
        File.WriteAllText(Path.Combine(folder, RunFolder.PredictionsName), $$"""
            {"step":{{quoted}},"spread":[{"image":{{quoted}},"class":{{quoted}},"top":[{"class":{{quoted}},"probability":{{quoted}},"right":true}],"jpeg":{{quoted}}}],
            "mistakes":[{"image":{{quoted}},"class":{{quoted}},"top":[{"class":{{quoted}},"probability":0.5,"right":false}],"jpeg":"\" onerror=\"document.title='owned'"}],
            "worst_classes":[{"class":{{quoted}},"images":{{quoted}},"right":1}],"confusions":[{"class":{{quoted}},"predicted":{{quoted}},"count":{{quoted}},"images":1}]}
            """);
    }
}
