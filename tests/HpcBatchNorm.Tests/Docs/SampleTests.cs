using System.Diagnostics;
using HpcBatchNorm.Tests.Native;

namespace HpcBatchNorm.Tests.Docs;

/// <summary>The samples run as they are, and what they claim holds.</summary>
public class SampleTests
{
    [Fact]
    public void OwnLayer_Runs()
    {
        OneDnn.Create().Dispose();
        var start = new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "OwnLayer.dll")]) { RedirectStandardOutput = true };
        using Process process = Process.Start(start)!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, output);
        Assert.Contains("and the same state, bit for bit", output, StringComparison.Ordinal);
    }
}
