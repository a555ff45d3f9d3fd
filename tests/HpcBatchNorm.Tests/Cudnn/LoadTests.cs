using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Tests.Cli;

namespace HpcBatchNorm.Tests.Cudnn;

/// <summary>What is said where something of CUDA is missing or wrong: each in a process of its own, none ends in a crash.</summary>
[Collection(StubDevice.Collection)]
public sealed class LoadTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("hbn-cuda").FullName;

    [Fact]
    public async Task Info_WithEverythingThere_ShowsLibrariesVersionsPathsAndDevice()
    {
        string output = await InfoAsync(StubDevice.Folder, "");
        Assert.Contains("cudnn      available", output, StringComparison.Ordinal);
        Assert.Contains("CUDA driver: libcuda.so.1 for CUDA 13.0", output, StringComparison.Ordinal);
        Assert.Contains("NVRTC: libnvrtc.so.12 12.99", output, StringComparison.Ordinal);
        Assert.Contains($"cuDNN: libcudnn.so.9 9.19.0 ({StubDevice.Folder}", output, StringComparison.Ordinal);
        Assert.Contains("device: Stub device, compute capability 9.0", output, StringComparison.Ordinal);
    }

    /// <summary>Also where one of them cannot be asked: the others can be used.</summary>
    [Theory]
    [InlineData("devices=3", "device 0: Stub device, compute capability 9.0")]
    [InlineData("devices=3;fail:cuDeviceTotalMem_v2=2", "CUDA_ERROR_OUT_OF_MEMORY (2)")]
    public async Task Info_WithSeveralDevices_ShowsEach(string stub, string ofTheFirst)
    {
        string output = await InfoAsync(StubDevice.Folder, stub);
        Assert.Contains("cudnn      available", output, StringComparison.Ordinal);
        Assert.Contains(ofTheFirst, output, StringComparison.Ordinal);
        Assert.Contains("device 1: Stub device 1, compute capability 9.0", output, StringComparison.Ordinal);
        Assert.Contains("device 2: Stub device 2, compute capability 9.0", output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Info_WhereNoDeviceIsVisible_NamesTheVariable()
    {
        _ = StubDevice.Libraries;
        using HpcbnProcess process = HpcbnProcess.Start(
            _folder, ["info"], (CudaSearch.OverrideVariable, StubDevice.Folder), ("HBN_STUB", "devices=0"), ("CUDA_VISIBLE_DEVICES", "7"));
        Assert.Equal(0, await process.WaitForExitAsync(TestContext.Current.CancellationToken));
        Assert.Contains("device: the driver knows no device (CUDA_VISIBLE_DEVICES is '7')", process.Output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("devices=0", "device: the driver knows no device")]
    [InlineData("fail:cuInit*=100", "cuInit reports CUDA_ERROR_NO_DEVICE (100): no CUDA-capable device is detected")]
    [InlineData("fail:cuInit*=803", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)")]
    [InlineData("cudnn_version=8907", "version 8.9.7 found, 9.0 or later expected")]
    public async Task Info_WithAFault_NamesIt(string fault, string text)
    {
        string output = await InfoAsync(StubDevice.Folder, fault);
        Assert.Contains("cudnn      not available", output, StringComparison.Ordinal);
        Assert.Contains(text, output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("libcudnn_cnn.so.9", "cuDNN: its part libcudnn_cnn.so.9 is missing beside it")]
    [InlineData("libcudnn.so.9", "cuDNN: libcudnn.so.9 not found in HBN_CUDA_PATH = ")]
    [InlineData("libnvrtc.so.12", "NVRTC: none of libnvrtc.so.13, libnvrtc.so.12, libnvrtc.so.11.2 found in HBN_CUDA_PATH = ")]
    public async Task Info_WithoutOneFile_NamesItAndThePlace(string file, string text)
    {
        _ = StubDevice.Libraries;
        foreach (string path in Directory.EnumerateFiles(StubDevice.Folder, "*.so.*").Where(p => Path.GetFileName(p) != file))
        {
            File.Copy(path, Path.Combine(_folder, Path.GetFileName(path)));
        }

        string output = await InfoAsync(_folder, "");
        Assert.Contains("cudnn      not available", output, StringComparison.Ordinal);
        Assert.Contains(text, output, StringComparison.Ordinal);
        Assert.Contains("to do: pip install nvidia-cudnn", output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Train_WithoutTheLibraries_FailsWithTheReport()
    {
        using HpcbnProcess process = HpcbnProcess.Start(_folder, ["verify", "--backend", "cudnn"], (CudaSearch.OverrideVariable, _folder));
        Assert.Equal(1, await process.WaitForExitAsync(TestContext.Current.CancellationToken));
        Assert.Contains("The backend 'cudnn' cannot be used here.", process.Output, StringComparison.Ordinal);
        Assert.Contains("HBN_CUDA_PATH", process.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", process.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Info_WithAPartOfAnotherVersion_NamesBoth()
    {
        _ = StubDevice.Libraries;
        string other = Directory.CreateDirectory(Path.Combine(_folder, "other")).FullName, chosen = Directory.CreateDirectory(Path.Combine(_folder, "chosen")).FullName;
        foreach (string path in Directory.EnumerateFiles(StubDevice.Folder, "*.so.*"))
        {
            string name = Path.GetFileName(path), file = name.StartsWith("libcudnn", StringComparison.Ordinal) ? name + ".19.0" : name;
            File.Copy(path, Path.Combine(chosen, file));
            if (file != name)
            {
                File.CreateSymbolicLink(Path.Combine(chosen, name), file);
            }
        }

        Assert.DoesNotContain("different versions", await InfoAsync(chosen, ""), StringComparison.Ordinal);

        string part = Path.Combine(other, "libcudnn_engines_tensor_ir.so.9.23.1");
        File.Copy(Path.Combine(StubDevice.Folder, "libcudnn_adv.so.9"), part);
        File.CreateSymbolicLink(Path.Combine(chosen, "libcudnn_engines_tensor_ir.so.9"), part);
        string output = await InfoAsync(chosen, "");

        Assert.Contains("warning: parts of different versions of cuDNN are in this process: 9.19.0 (", output, StringComparison.Ordinal);
        Assert.Contains($"; 9.23.1 ({part})", output, StringComparison.Ordinal);
    }

    [Fact]
    public void CudnnInstallations_AreToldApart_ByNumberedFilesAndPackageRecords()
    {
        string packages = Path.Combine(_folder, "site-packages"), wheel = Path.Combine(packages, "nvidia", "cudnn", "lib");
        Directory.CreateDirectory(wheel);
        Directory.CreateDirectory(Path.Combine(packages, "nvidia_cudnn_cu12-9.19.0.56.dist-info"));
        string[] ofTheWheel = [Path.Combine(wheel, "libcudnn.so.9"), Path.Combine(wheel, "libcudnn_graph.so.9")];

        Assert.Null(CudnnInstallations.Mixture([]));
        Assert.Null(CudnnInstallations.Mixture(ofTheWheel));
        Assert.Null(CudnnInstallations.Mixture([.. ofTheWheel, "/usr/lib/libcudnn_ops.so.9.19.0"]));
        Assert.Contains("9.23.0 (/usr/lib/libcudnn_engines_tensor_ir.so.9.23.0)", CudnnInstallations.Mixture([.. ofTheWheel, "/usr/lib/libcudnn_engines_tensor_ir.so.9.23.0"]), StringComparison.Ordinal);
        Assert.Contains("in /opt/x (", CudnnInstallations.Mixture([.. ofTheWheel, "/opt/x/libcudnn_ops.so.9"]), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Verify_KeepsItsAlgorithmsInTheCache_AndSearchesNoMore()
    {
        _ = StubDevice.Libraries;
        string file = Path.Combine(_folder, "hpcbn", "cuda", "algorithms.json");
        const string NoSearch =
            "fail:cudnnFindConvolutionForwardAlgorithmEx*=5000;fail:cudnnFindConvolutionBackwardDataAlgorithmEx*=5000;fail:cudnnFindConvolutionBackwardFilterAlgorithmEx*=5000";
        async Task<int> VerifyAsync(string stub)
        {
            using HpcbnProcess process = HpcbnProcess.Start(_folder, ["verify", "--backend", "cudnn", "--case", "convolution/bias/random"],
                (CudaSearch.OverrideVariable, StubDevice.Folder), ("HBN_STUB", stub), ("XDG_CACHE_HOME", _folder));
            return await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        }

        Assert.NotEqual(0, await VerifyAsync(NoSearch));
        Assert.Equal(0, await VerifyAsync(""));
        Assert.True(File.Exists(file));
        Assert.Equal(0, await VerifyAsync(NoSearch));

        // What is only a cache stops nobody.
        File.WriteAllText(file, "{ not json");
        Assert.Equal(0, await VerifyAsync(""));
        Assert.Equal(0, await VerifyAsync(NoSearch));
    }

    [Fact]
    public void Search_FindsPipPackages_BeforeTheLinkersPlaces()
    {
        string packages = Path.Combine(_folder, "lib", "python3.12", "site-packages", "nvidia", "cudnn", "lib");
        Directory.CreateDirectory(packages);
        string library = Path.Combine(packages, "libhbn-cudnn.so.9"); // a name that this process cannot have loaded
        File.WriteAllText(library, "");
        var search = new CudaSearch(name => name == "VIRTUAL_ENV" ? _folder : null);
        Assert.Equal([library, "libhbn-cudnn.so.9"], search.Candidates("libhbn-cudnn.so.9", overrideOnly: true).Take(2));
    }

    [Theory]
    [InlineData(91900u, "9.19.0")]
    [InlineData(90600u, "9.6.0")]
    [InlineData(8907u, "8.9.7")]
    public void CudnnVersion_IsReadAsNvidiaWritesIt(uint number, string text) => Assert.Equal(text, CudaLibraries.CudnnVersionText(number));

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private async Task<string> InfoAsync(string libraries, string stub)
    {
        _ = StubDevice.Libraries; // skips where there is no stub
        using HpcbnProcess process = HpcbnProcess.Start(_folder, ["info"], (CudaSearch.OverrideVariable, libraries), ("HBN_STUB", stub));
        Assert.Equal(0, await process.WaitForExitAsync(TestContext.Current.CancellationToken));
        return process.Output;
    }
}
