using System.Diagnostics;
using HpcBatchNorm.Tests.Native;

namespace HpcBatchNorm.Tests.Docs;

/// <summary>The samples run as they are, and what they claim holds. The web service has tests of its own.</summary>
public class SampleTests
{
    [Theory]
    [InlineData("OwnNetwork", "ok: the picture is recognised")]
    [InlineData("OwnLayer", "and the same state, bit for bit")]
    [InlineData("OwnData", "ok: and so is the checkpoint, byte for byte")]
    [InlineData("TransferLearning", "ok: what it had learned before helps")]
    [InlineData("SingleOperations", "ok: onednn agrees with the reference")]
    public async Task Sample_Runs_AndWhatItClaimsHolds(string name, string expected)
    {
        OneDnn.Create().Dispose();
        string program = Path.GetFullPath(Path.Combine(AppContext.BaseDirectory, "..", "..", name, new DirectoryInfo(AppContext.BaseDirectory).Name, $"{name}.dll"));
        var start = new ProcessStartInfo("dotnet", [program]) { RedirectStandardOutput = true, RedirectStandardError = true };
        using Process process = Process.Start(start)!;
        CancellationToken token = TestContext.Current.CancellationToken;
        Task<string> errors = process.StandardError.ReadToEndAsync(token);
        string output = await process.StandardOutput.ReadToEndAsync(token);
        await process.WaitForExitAsync(token);
        Assert.True(process.ExitCode == 0, output + await errors);
        Assert.Contains(expected, output, StringComparison.Ordinal);
    }
}
