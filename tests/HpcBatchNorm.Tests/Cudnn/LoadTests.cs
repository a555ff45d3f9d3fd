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
