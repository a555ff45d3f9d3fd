using System.Diagnostics;
using System.IO.Hashing;
using System.Xml.Linq;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Cudnn;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Native;

/// <summary>What is there for other platforms and can be looked at on this one; tests/wine/run.sh and build/cross run the rest.</summary>
public sealed class PlatformTests : IDisposable
{
    private const int SharingViolation = unchecked((int)0x80070020), DiskFull = unchecked((int)0x80070070);

    private readonly string _folder = Directory.CreateTempSubdirectory("hpcbn-platform").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData(0, 1)]
    [InlineData(2, 3)]
    public void Rename_FileIsHeldForAWhile_IsTriedAgain(int failures, int expected)
    {
        int tries = 0;

        FileRename.Patiently(() => _ = ++tries <= failures ? throw new IOException("held", SharingViolation) : 0, [TimeSpan.Zero, TimeSpan.Zero]);

        Assert.Equal(expected, tries);
    }

    [Theory]
    [InlineData(SharingViolation, 3)]
    [InlineData(DiskFull, 1)]
    public void Rename_FailsForGood_ThrowsTheLastFailure(int result, int expected)
    {
        int tries = 0;

        IOException error = Assert.Throws<IOException>(() => FileRename.Patiently(
            () => throw new IOException($"try {++tries}", result), [TimeSpan.Zero, TimeSpan.Zero]));

        Assert.Equal($"try {expected}", error.Message);
    }

    [Fact]
    public void Delete_OfAFile_Succeeds()
    {
        string path = Path.Combine(_folder, "a");
        File.WriteAllText(path, "x");

        Assert.True(FileRename.TryDelete(path));
        Assert.False(File.Exists(path));
    }

    [Theory]
    [InlineData("processor\t: 0\nmodel name\t: AMD EPYC 9B45\nflags\t: fpu", "AMD EPYC 9B45")]
    [InlineData("processor\t: 0\nCPU implementer\t: 0x41\n", null)] // Linux on arm64 names none
    public void ProcessorName_OfCpuInfo_IsItsModelName(string text, string? expected) => Assert.Equal(expected, MachineProcessor.InCpuInfo(text));

    [Fact]
    public void Scripts_OfOtherPlatforms_Parse()
    {
        string[] scripts = [.. Directory.GetFiles(RepoPaths.InRepo("build/cross"), "*.sh"), RepoPaths.InRepo("tests/wine/run.sh")];
        Assert.Equal(4, scripts.Length);
        foreach (string script in scripts)
        {
            using Process bash = Process.Start(new ProcessStartInfo("bash", ["-n", script]) { RedirectStandardError = true })!;
            string problem = bash.StandardError.ReadToEnd();
            bash.WaitForExit();
            Assert.True(bash.ExitCode == 0, $"{script}: {problem}");
        }
    }

    [Fact]
    public void WindowsLauncher_HasLineEndsOfWindows_AndNamesTheProjectAndWhatItBuilds()
    {
        string text = File.ReadAllText(RepoPaths.InRepo("hpcbn.cmd"));

        Assert.All(text.TrimEnd().Split('\n')[..^1], line => Assert.EndsWith("\r", line, StringComparison.Ordinal));
        Assert.Contains("""dotnet build "%~dp0src\HpcBatchNorm.Cli" """, text, StringComparison.Ordinal);
        Assert.True(Directory.Exists(RepoPaths.InRepo("src/HpcBatchNorm.Cli")));
        Assert.Contains("""artifacts\bin\HpcBatchNorm.Cli\release\hpcbn.dll""", text, StringComparison.Ordinal);
    }

    /// <summary>A compiler's new warning, or no network for a check of packages, must not keep anybody from building.</summary>
    [Fact]
    public void Build_OnAUsersMachine_TakesNoWarningForAnError_AndAOneDnnOfOnesOwn()
    {
        XDocument props = XDocument.Load(RepoPaths.InRepo("Directory.Build.props"));
        Assert.Equal("false", Assert.Single(props.Descendants("NuGetAudit")).Value);
        Assert.DoesNotContain(props.Descendants(), e => e.Name.LocalName is "TreatWarningsAsErrors" or "MSBuildTreatWarningsAsErrors" or "WarningsAsErrors");
        Assert.Matches("option\\(HBN_WARNINGS_AS_ERRORS \"[^\"]*\" OFF\\)", File.ReadAllText(RepoPaths.InRepo("CMakeLists.txt")));
        Assert.Contains("DEFINED ENV{dnnl_DIR}", File.ReadAllText(RepoPaths.InRepo("native/CMakeLists.txt")), StringComparison.Ordinal);
    }

    [Fact]
    public void CompiledKernels_OfADamagedCacheFile_AreNotLoaded()
    {
        byte[] code = [1, 2, 3, 4, 5], file = [.. XxHash128.Hash(code), .. code];
        Assert.Equal(code, CudaModules.Content(file));
        Assert.Null(CudaModules.Content(file[..^1]));
        Assert.Null(CudaModules.Content(file[..8]));
        file[^1] ^= 1;
        Assert.Null(CudaModules.Content(file));
    }

    [Theory]
    [InlineData("linux-x64")]
    [InlineData("linux-arm64")]
    [InlineData("win-x64")]
    public void NativePackage_OfEachPlatform_SharesItsRules_AndExperimentsSaySo(string rid)
    {
        string file = RepoPaths.InRepo($"interop/HpcBatchNorm.Native.{rid}/HpcBatchNorm.Native.{rid}.csproj");
        XDocument project = XDocument.Load(file);
        bool experiment = rid != "linux-x64";

        Assert.Equal(["../Native.Package.props", "../Native.Package.targets"], project.Descendants("Import").Select(i => (string?)i.Attribute("Project")));
        Assert.Equal(experiment, project.Descendants("Description").Single().Value.StartsWith("Experimental:", StringComparison.Ordinal));
        Assert.Equal(experiment ? "$(Version)-experimental" : null, project.Descendants("PackageVersion").SingleOrDefault()?.Value);
        // What users get without asking is what was run on hardware.
        Assert.Equal(!experiment, File.ReadAllText(RepoPaths.InRepo("interop/HpcBatchNorm.Interop/HpcBatchNorm.Interop.csproj")).Contains($"HpcBatchNorm.Native.{rid}", StringComparison.Ordinal));
        Assert.Contains($"HpcBatchNorm.Native.{rid}", NativeLibraries.Missing(rid), StringComparison.Ordinal);
    }
}
