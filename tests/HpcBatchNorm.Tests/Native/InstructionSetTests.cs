using System.Text.RegularExpressions;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Tests.Cli;

namespace HpcBatchNorm.Tests.Native;

/// <summary>One variable caps what oneDNN and our own kernels use of the processor; a user's settings of the libraries' own variables stay.</summary>
public sealed class InstructionSetTests
{
    // By how much each can do; what a cap leaves is the smaller of it and the processor's.
    private static readonly string[] Sets = ["SSE", "AVX2", "AVX-512", "AVX-512 with BF16"];

    /// <summary>oneDNN reads the variable once a process, so each cap has a process of its own.</summary>
    [Theory]
    [Trait("Category", "Slow")]
    [InlineData("HBN_MAX_CPU_ISA", "SSE41", "SSE")]
    [InlineData("HBN_MAX_CPU_ISA", "avx2", "AVX2")]
    [InlineData("HBN_MAX_CPU_ISA", "AVX512_CORE", "AVX-512")]
    [InlineData("HBN_MAX_CPU_ISA", "AVX512_CORE_BF16", "AVX-512 with BF16")]
    [InlineData("ONEDNN_MAX_CPU_ISA", "SSE41", "SSE")]
    public async Task Cap_IsKeptByOneDnnAndOurKernels_AndTheirResultsAreRight(string variable, string cap, string most)
    {
        string uncapped = SetIn(await Output(["info"]));
        string expected = Sets[Math.Min(Array.IndexOf(Sets, most), Array.IndexOf(Sets, uncapped))];
        string info = await Output(["info"], (variable, cap));
        Assert.Contains($"{variable}={cap.ToUpperInvariant()}", info, StringComparison.Ordinal);
        Assert.Equal(expected, SetIn(info));

        foreach (string verified in new[] { "convolution/3x3/random", "pooling/max/3x3-stride2/random" })
        {
            Assert.Contains("0 failed", await Output(["verify", "--backend", "onednn", "--case", verified], (variable, cap)), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Cap_ThatIsNone_IsRefusedByName()
    {
        Dictionary<string, string> set = [];
        Assert.False(NativeLibraries.PrepareEnvironment(Variables(("HBN_MAX_CPU_ISA", "AVX3")), set.Add, out _, out string error));
        Assert.StartsWith("HBN_MAX_CPU_ISA is 'AVX3'; it must be one of SSE41, AVX, AVX2,", error, StringComparison.Ordinal);
    }

    [Fact]
    public void Environment_OfTheUser_ComesBeforeOurs()
    {
        // Ours caps oneDNN too, and comes before oneDNN's own.
        Assert.Equal(
            ("HBN_MAX_CPU_ISA=AVX2", "GOMP_SPINCOUNT=10000 ONEDNN_MAX_CPU_ISA=AVX2"), Prepared(("HBN_MAX_CPU_ISA", "avx2"), ("ONEDNN_MAX_CPU_ISA", "SSE41")));
        Assert.Equal(("ONEDNN_MAX_CPU_ISA=SSE41", "GOMP_SPINCOUNT=10000"), Prepared(("ONEDNN_MAX_CPU_ISA", "SSE41")));
        Assert.Equal(("DNNL_MAX_CPU_ISA=AVX", "GOMP_SPINCOUNT=10000"), Prepared(("DNNL_MAX_CPU_ISA", "AVX")));

        // GNU OpenMP lets GOMP_SPINCOUNT win over the policy, so setting it would undo that.
        Assert.Equal(("", ""), Prepared(("OMP_WAIT_POLICY", "ACTIVE")));
        Assert.Equal(("", ""), Prepared(("GOMP_SPINCOUNT", "5")));
        Assert.Equal(("", "GOMP_SPINCOUNT=10000"), Prepared());
    }

    private static (string Cap, string Set) Prepared(params (string Name, string Value)[] variables)
    {
        SortedDictionary<string, string> set = new(StringComparer.Ordinal);
        Assert.True(NativeLibraries.PrepareEnvironment(Variables(variables), set.Add, out string cap, out _));
        return (cap, string.Join(' ', set.Select(s => $"{s.Key}={s.Value}")));
    }

    private static Func<string, string?> Variables(params (string Name, string Value)[] variables) =>
        name => Array.Find(variables, v => v.Name == name).Value;

    private static string SetIn(string text) => Regex.Match(text, @"oneDNN \d+\.\d+\.\d+, (AVX-512 with BF16|AVX-512|AVX2|SSE)").Groups[1].Value;

    /// <summary>What a process writes under these caps and no others, such as those that the tests themselves run under.</summary>
    private static async Task<string> Output(string[] args, params (string Name, string Value)[] caps)
    {
        (string, string)[] none = [("HBN_MAX_CPU_ISA", ""), ("ONEDNN_MAX_CPU_ISA", ""), ("DNNL_MAX_CPU_ISA", "")];
        using HpcbnProcess process = HpcbnProcess.Start(Path.GetTempPath(), args, [.. none, .. caps]);
        Assert.Equal(0, await process.WaitForExitAsync(TestContext.Current.CancellationToken));
        await Task.Delay(100, TestContext.Current.CancellationToken);
        return process.Output;
    }
}
