using System.Text.Json;
using HpcBatchNorm.Reporting;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Tests.Training;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Reporting;

/// <summary>The pages as a real browser shows them. Pictures of them are left in artifacts/screenshots for people to look at.</summary>
public sealed class BrowserTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    private const string Lines = "[...document.querySelectorAll('path.line')].map(p => p.getAttribute('d').split('L').length)";

    [Fact]
    [Trait("Category", "Slow")]
    public async Task Report_OnDesktopPhoneAndPaper()
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        await using Browser browser = await Browser.StartOrSkipAsync(token);
        using var observer = new RecordingObserver();
        TrainingResult result = TrainingFixture.Run(
            new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(fixture.NewFolder(), ("steps", "12"), ("eval-every", "0.5")) }, observer);

        foreach ((string name, int width, bool dark) in new[] { ("report-desktop", 1280, false), ("report-dark", 1280, true), ("report-phone", 390, false) })
        {
            await browser.ResizeAsync(width, 900, dark, token);
            await browser.OpenAsync(new Uri(Path.GetFullPath(result.Report)).AbsoluteUri, token);

            // Loss twice, accuracy twice, learning rate, throughput, data wait, memory, drift twice: each a line of several points.
            int[] lines = [.. (await browser.EvaluateAsync(Lines, token)).EnumerateArray().Select(n => n.GetInt32())];
            Assert.Equal(10, lines.Length);
            Assert.All(lines, points => Assert.InRange(points, 2, ChartDrawing.MostPoints));
            Assert.True((await browser.EvaluateAsync("[...document.images].length >= 9 && [...document.images].every(i => i.complete && i.naturalWidth > 0)", token)).GetBoolean(), "a picture is missing");
            await AssertReadableAsync(browser, token);
            await AssertHoverAsync(browser, "Loss", "training", token);
            await browser.ScreenshotAsync(name, token);
        }

        byte[] pdf = await browser.PrintAsync("report-paper", token);
        Assert.Equal("%PDF"u8.ToArray(), pdf[..4]);
        Assert.Empty(browser.Errors);
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task Dashboard_FollowsRuns_AndComparesThem()
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        await using Browser browser = await Browser.StartOrSkipAsync(token);
        string runs = fixture.NewFolder();
        var a = new WrittenRun(Path.Combine(runs, "20260131-120000-bn-inception-bn-x5"), "bn-inception, bn-x5", 2000, 0);
        var b = new WrittenRun(Path.Combine(runs, "20260131-130000-bn-inception-bn-x30"), "bn-inception, bn-x30", 2000, 2);
        for (int i = 0; i < 50; i++)
        {
            a.Log(20);
            b.Log(20);
        }

        b.End("completed");
        using var server = new Served(runs);

        // One run: the page follows it without being loaded again.
        await browser.ResizeAsync(1280, 900, dark: false, token);
        await browser.OpenAsync($"{server.Address}run?name=20260131-120000-bn-inception-bn-x5", token);
        await browser.EvaluateAsync("window.marker = 1; document.querySelector('details').open = true", token);
        int before = (await browser.EvaluateAsync(Lines, token))[0].GetInt32();
        Assert.Equal(50, before);
        a.Log(20);
        await browser.WaitForAsync($"{Lines}[0] === 51", token);
        Assert.True((await browser.EvaluateAsync("window.marker === 1 && document.querySelector('details').open && document.querySelector('.sub').textContent.includes('step 1020 of 2000')", token)).GetBoolean());
        Assert.Equal(69, (await browser.EvaluateAsync("document.querySelectorAll('.heat div').length", token)).GetInt32());
        await AssertReadableAsync(browser, token);
        await AssertHoverAsync(browser, "Loss", "validation", token);
        await browser.ScreenshotAsync("dashboard-run", token);

        // All of them, a line each; those that are not ticked are left out.
        foreach ((int width, string name) in new[] { (1280, "dashboard-runs"), (390, "dashboard-runs-phone") })
        {
            await browser.ResizeAsync(width, 900, dark: width > 600, token);
            await browser.OpenAsync(server.Address, token);
            Assert.Equal(12, (await browser.EvaluateAsync(Lines, token)).GetArrayLength());
            await AssertReadableAsync(browser, token);
            await browser.ScreenshotAsync(name, token);
        }

        await browser.EvaluateAsync("window.marker = 2; document.querySelector('.legend li').click()", token);
        Assert.Equal(1, (await browser.EvaluateAsync("[...document.querySelectorAll('figure.chart')][0].querySelectorAll('path.line:not([style*=none])').length", token)).GetInt32());
        a.Log(20);
        await browser.WaitForAsync("document.body.textContent.includes('1040 of 2000')", token);
        Assert.True((await browser.EvaluateAsync("window.marker === 2 && [...document.querySelectorAll('figure.chart')][0].querySelectorAll('path.line:not([style*=none])').length === 1", token)).GetBoolean(), "what was hidden came back");
        await browser.EvaluateAsync("document.querySelector('input[type=checkbox]').click()", token);
        await browser.WaitForAsync($"window.marker !== 2 && {Lines}.length === 6 && location.search.includes('run=')", token);
        Assert.Empty(browser.Errors);
    }

    /// <summary>Nothing is wider than the window, and text in the charts is large enough.</summary>
    private static async Task AssertReadableAsync(Browser browser, CancellationToken token)
    {
        JsonElement size = await browser.EvaluateAsync(
            "({ page: document.documentElement.scrollWidth, window: innerWidth, text: Math.min(...[...document.querySelectorAll('svg')].map(s => 12.5 * s.getBoundingClientRect().width / s.viewBox.baseVal.width)) })", token);
        Assert.True(size.GetProperty("page").GetInt32() <= size.GetProperty("window").GetInt32(), $"the page is wider than the window: {size}");
        Assert.True(size.GetProperty("text").GetDouble() >= 9, $"text is too small: {size}");
    }

    /// <summary>The value beneath the pointer is shown.</summary>
    private static async Task AssertHoverAsync(Browser browser, string chart, string series, CancellationToken token)
    {
        JsonElement tip = await browser.EvaluateAsync(
            $$"""
            (() => {
                const figure = [...document.querySelectorAll('figure.chart')].find(f => f.querySelector('b').textContent === '{{chart}}'), svg = figure.querySelector('svg'), box = svg.getBoundingClientRect();
                svg.dispatchEvent(new PointerEvent('pointermove', { bubbles: true, clientX: box.left + box.width * 0.6, clientY: box.top + box.height / 2 }));
                return figure.querySelector('.tip')?.textContent ?? '';
            })()
            """, token);
        Assert.Matches($@"^epoch [\d.]+.*{series} [\d.]+", tip.GetString()!);
    }
}
