using System.Runtime.InteropServices;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Interop;
namespace HpcBatchNorm.Tests.Native;

public sealed class LoadReportTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("hbn-load").FullName;

    [Fact]
    public void Probe_OverrideThatIsNotThere_NamesPathAndVariable()
    {
        LoadReport report = NativeLibraries.Probe("/nowhere/libhbn.so", [AppContext.BaseDirectory]);

        Assert.False(report.Loaded);
        Assert.Contains("/nowhere/libhbn.so: not there", report.Text, StringComparison.Ordinal);
        Assert.Contains("HBN_PATH is set to '/nowhere/libhbn.so'", report.Text, StringComparison.Ordinal);

        // A wrong setting must show: the library that is beside the program is not taken instead.
        Assert.DoesNotContain(AppContext.BaseDirectory, report.Text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("/new", "/old", "HBN_PATH", "/new")]
    [InlineData("", "/old", "HBN_ONEDNN_PATH", "/old")]
    [InlineData(null, "/old", "HBN_ONEDNN_PATH", "/old")]
    [InlineData(null, null, "HBN_PATH", null)]
    public void Override_OlderName_CountsWhereTheNewerIsNotSet(string? path, string? older, string variable, string? expected)
    {
        (string Variable, string? Path) found = NativeLibraries.Override(name => name switch { "HBN_PATH" => path, "HBN_ONEDNN_PATH" => older, _ => "/other" });
        Assert.Equal((variable, expected), found);
        if (expected is not null)
        {
            Assert.Contains($"{variable} is set to '{expected}'", NativeLibraries.Probe(expected, [AppContext.BaseDirectory], variable: variable).Text, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Probe_OverrideIsFolder_LooksForTheFileInIt()
    {
        LoadReport report = NativeLibraries.Probe(_folder, [AppContext.BaseDirectory]);

        Assert.Contains($"{Path.Combine(_folder, "libhbn.so")}: not there", report.Text, StringComparison.Ordinal);
    }

    [Fact]
    public void Probe_NothingAnywhere_ListsEveryPlaceAndTheFix()
    {
        // Under another name: ours is in this process already, and the system would hand it out.
        LoadReport report = NativeLibraries.Probe(null, NativeFolders.All(_folder, null, null), "libhbn-absent.so");

        Assert.False(report.Loaded);
        Assert.Contains($"{Path.Combine(_folder, "libhbn-absent.so")}: not there", report.Text, StringComparison.Ordinal);
        Assert.Contains("libhbn-absent.so: cannot open shared object file", report.Text, StringComparison.Ordinal);
        Assert.Contains(Path.Combine("runtimes", RuntimeInformation.RuntimeIdentifier, "native"), report.Text, StringComparison.Ordinal);
        Assert.Contains(NativeLibraries.Missing(RuntimeInformation.RuntimeIdentifier), report.Text, StringComparison.Ordinal);
    }

    [Fact]
    public void Folders_OfAnApplication_AreProgramThenPluginThenRuntimesThenTheHosts()
    {
        string rid = $"linux-{RuntimeInformation.ProcessArchitecture.ToString().ToLowerInvariant()}";
        string[] expected = ["/app", "/plugins/a", $"/app/runtimes/{rid}/native", $"/plugins/a/runtimes/{rid}/native", "/cache/x", "/cache/y"];

        string[] found = [.. NativeFolders.All("/app/", "/plugins/a", "/cache/x/:/app/:/cache/y")];

        // A .NET that a distribution built has an identifier of its own besides.
        Assert.Equal(expected, found.Where(f => !f.Contains(RuntimeInformation.RuntimeIdentifier, StringComparison.Ordinal) || RuntimeInformation.RuntimeIdentifier == rid));
    }

    [Theory]
    [InlineData("linux-x64", "HpcBatchNorm.Native.linux-x64")]
    [InlineData("debian.12-x64", "HpcBatchNorm.Native.linux-x64")]
    [InlineData("linux-musl-x64", "musl")]
    [InlineData("linux-arm64", "HpcBatchNorm.Native.linux-arm64")]
    [InlineData("linux-musl-arm64", "musl")]
    [InlineData("win-x64", "HpcBatchNorm.Native.win-x64")]
    [InlineData("win-x64", "WSL 2")]
    [InlineData("win-arm64", "no package of the native library for win-arm64")]
    [InlineData("osx-arm64", "no package of the native library for osx-arm64")]
    public void Missing_OnAPlatform_SaysWhatThatPlatformHas(string rid, string expected) =>
        Assert.Contains(expected, NativeLibraries.Missing(rid), StringComparison.Ordinal);

    [Fact]
    public void Probe_FileIsNoLibrary_QuotesTheLinker()
    {
        string path = Path.Combine(_folder, "libhbn.so");
        File.WriteAllText(path, "this is not a library, but it is long enough to have an ELF header, which it lacks");

        LoadReport report = NativeLibraries.Probe(path, [AppContext.BaseDirectory]);

        Assert.False(report.Loaded);
        Assert.Contains("invalid ELF header", report.Text, StringComparison.Ordinal);
    }

    [Fact]
    public void Probe_SomeOtherLibrary_SaysThatItIsNotOurs()
    {
        string other = Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "libSystem.Native.so");

        LoadReport report = NativeLibraries.Probe(other, [AppContext.BaseDirectory]);

        Assert.False(report.Loaded);
        Assert.Contains("not our library", report.Text, StringComparison.Ordinal);
    }

    [Fact]
    public void Probe_OneDnnMissing_NamesThePackage()
    {
        // Our library with the name of the oneDNN it needs changed to one that nobody has.
        string ours = Path.Combine(AppContext.BaseDirectory, "libhbn.so");
        Assert.SkipUnless(File.Exists(ours), "built with SkipNative");
        byte[] bytes = File.ReadAllBytes(ours);
        int at = bytes.AsSpan().IndexOf("libdnnl.so."u8);
        Assert.True(at > 0, "libhbn.so does not name libdnnl.so");
        bytes[at + "libdnnl.so.".Length] = (byte)'9';
        string path = Path.Combine(_folder, "libhbn.so");
        File.WriteAllBytes(path, bytes);

        LoadReport report = NativeLibraries.Probe(path, [AppContext.BaseDirectory]);

        Assert.False(report.Loaded);
        Assert.Contains("libdnnl.so.9", report.Text, StringComparison.Ordinal);
        Assert.Contains("libdnnl is missing: apt-get install libdnnl9", report.Text, StringComparison.Ordinal);
    }

    [Fact]
    public void Probe_OurLibrary_ReportsAbiAndVersion()
    {
        using Backend backend = OneDnn.Create();

        Assert.Matches(@"libhbn\.so: loaded, ABI \d+, oneDNN \d+\.\d+\.\d+", NativeLibraries.Hbn.Text);
        Assert.Matches(@"^oneDNN \d+\.\d+\.\d+, (AVX-512( with BF16)?|AVX2|SSE)( \(\w+=\w+\))?, \d+ threads?$", backend.Description);
    }

    [Fact]
    public void Create_Auto_IsNeverTheReference()
    {
        using Backend backend = OneDnn.Create();
        using Backend automatic = Backend.Create("auto");

        Assert.Equal(backend.Name, automatic.Name);
    }

    [Theory]
    [InlineData("cudnn", "The backend 'cudnn' cannot be used here")]
    [InlineData("onednnn", "There is no backend 'onednnn'; there are auto, reference, onednn and cudnn.")]
    public void Create_BackendThatIsNotThere_SaysWhy(string name, string message)
    {
        UserErrorException error = Assert.Throws<UserErrorException>(() => Backend.Create(name));

        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);
}
