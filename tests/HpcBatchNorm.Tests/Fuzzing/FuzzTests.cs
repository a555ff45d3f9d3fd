using System.Diagnostics;
using System.Globalization;
using System.Text;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Fuzzing;

/// <summary>
/// No file from outside, however damaged, ends in anything but a line, a hang, or memory out of proportion. Seeds are fixed, so that a failure is found
/// again; <c>HBN_FUZZ_SECONDS</c> or <c>HBN_FUZZ_MUTATIONS</c> (of each parser) have others tried for longer, with a summary in artifacts/fuzz/summary.txt.
/// </summary>
public sealed class FuzzTests
{
    private const int Mutations = 2000;

    public static TheoryData<string> Names => [.. FuzzTargets.All.Select(target => target.Name)];

    [Theory]
    [MemberData(nameof(Names))]
    public void Parser_OfDamagedFiles_RefusesThemInALine(string name)
    {
        FuzzTarget target = FuzzTargets.All.Single(t => t.Name == name);
        FuzzResult result = FuzzRun.Run(target, firstSeed: 1, count => count < Mutations);
        Assert.True(result.Failures.Count == 0, string.Join('\n', result.Failures));
        // A target whose files are all refused at the door, or all accepted, tries nothing.
        Assert.Equal(Mutations, result.Inputs);
        Assert.InRange(result.Refused, target.Tolerant ? 0 : 1, Mutations - 1);
    }

    /// <summary>The files themselves must be good, or their changes would all be refused for the same reason.</summary>
    [Theory]
    [MemberData(nameof(Names))]
    public void Parser_OfUnchangedFiles_ReadsThem(string name)
    {
        FuzzTarget target = FuzzTargets.All.Single(t => t.Name == name);
        using var folder = new Data.TemporaryFolder();
        foreach (byte[] seed in target.Seeds())
        {
            byte[] whole = target.Repair is null ? seed : target.Repair(seed);
            target.Parse(folder.Write(target.FileName, whole), whole);
        }
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void Parsers_ForAsLongAsAsked()
    {
        double seconds = Number("HBN_FUZZ_SECONDS"), mutations = Number("HBN_FUZZ_MUTATIONS");
        Assert.SkipUnless(seconds > 0 || mutations > 0, "HBN_FUZZ_SECONDS or HBN_FUZZ_MUTATIONS says for how long");
        int firstSeed = (int)(DateTime.UtcNow.Ticks % 1_000_000_000);
        var summary = new StringBuilder();
        List<string> failures = [];
        (long inputs, int hangs, long beyond) = (0, 0, long.MinValue);
        foreach (FuzzTarget target in FuzzTargets.All)
        {
            long start = Stopwatch.GetTimestamp();
            double each = seconds / FuzzTargets.All.Count;
            FuzzResult result = FuzzRun.Run(target, firstSeed, count => mutations > 0 ? count < mutations : Stopwatch.GetElapsedTime(start).TotalSeconds < each);
            summary.Append(CultureInfo.InvariantCulture,
                $"{target.Name}: {result.Inputs} inputs, {result.Refused} refused, longest {result.Longest.TotalMilliseconds:0} ms, memory beyond ten times the file {result.MostBeyond / 1e6:0.0} MB, {result.Failures.Count} failures\n");
            failures.AddRange(result.Failures);
            inputs += result.Inputs;
            hangs += result.Longest > FuzzRun.Hang ? 1 : 0;
            beyond = Math.Max(beyond, result.MostBeyond);
        }

        summary.Append(CultureInfo.InvariantCulture,
            $"{FuzzTargets.All.Count} parsers, {inputs} inputs from seed {firstSeed}, {failures.Count} failures, {hangs} hangs over 10 s, most memory beyond ten times the file {beyond / 1e6:0.0} MB (allowed {FuzzRun.AllowedBytes / 1e6:0.0} MB)\n");
        foreach (string failure in failures)
        {
            summary.Append(failure).Append('\n');
        }

        string file = RepoPaths.InRepo("artifacts", "fuzz", "summary.txt");
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        File.WriteAllText(file, summary.ToString());
        TestContext.Current.TestOutputHelper?.WriteLine(summary.ToString());
        Assert.True(failures.Count == 0, summary.ToString());
    }

    private static double Number(string variable) =>
        double.TryParse(Environment.GetEnvironmentVariable(variable), NumberStyles.Float, CultureInfo.InvariantCulture, out double number) ? number : 0;
}
