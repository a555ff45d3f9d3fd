using System.Runtime.InteropServices;
using System.Text;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Cudnn;
using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Cudnn;

/// <summary>
/// The stand-in for NVIDIA's libraries (native/tests/cuda_stub): our CUDA kernels compiled for the host, convolutions by their definition, every argument
/// checked. One per process, so what uses it belongs to one collection and runs one after the other.
/// </summary>
internal static class StubDevice
{
    /// <summary>The collection of everything that uses the stub.</summary>
    public const string Collection = "CUDA stub";

    private static readonly Lazy<CudaLibraries> LazyLibraries = new(() =>
        new CudaLibraries(new CudaSearch(name => name == CudaSearch.OverrideVariable ? Folder : null)));

    private delegate void Act();

    private delegate long GetNumber();

    private delegate nint GetText();

    private delegate void SetNamed(byte[] name, long value);

    private delegate long GetNamed(byte[] name);

    // Asked before the stub is loaded, which has the driver's name and would be taken for it.
    private static readonly bool DriverIsHere = CudaLibraries.Shared.Driver.Usable;

    private static readonly Lazy<nint> Library = new(() => NativeLibrary.Load(Path.Combine(Folder, "libcuda.so.1")));

    /// <summary>Where CMake puts the stub's libraries.</summary>
    public static string Folder => RepoPaths.InRepo("artifacts", "native-build", "native", "tests", "cuda_stub");

    /// <summary>The stub's libraries; skips the calling test where they were not built, or where NVIDIA's own are.</summary>
    public static CudaLibraries Libraries
    {
        get
        {
            Assert.SkipUnless(File.Exists(Path.Combine(Folder, "libcudnn.so.9")),
                "the CUDA stub is not built: cmake --build artifacts/native-build (test.sh does)");
            Assert.SkipWhen(DriverIsHere, "NVIDIA's driver is here; a process cannot hold the stub beside it");
            return LazyLibraries.Value;
        }
    }

    /// <summary>Compiled kernels of the stub, apart from those of real devices.</summary>
    public static string CacheFolder { get; } = Directory.CreateTempSubdirectory("hbn-stub-cubin").FullName;

    /// <summary>A backend on the stub, its settings as at the start but for one.</summary>
    public static Backend Create(BackendOptions? options = null, (string Name, long Value)? setting = null)
    {
        CudaLibraries libraries = Libraries;
        Assert.True(libraries.Available, libraries.Text);
        Reset();
        if (setting is { } given)
        {
            Set(given.Name, given.Value);
        }

        return CudnnBackend.Open(options ?? new BackendOptions(), libraries, CacheFolder);
    }

    /// <summary>Device memory in use, in bytes.</summary>
    public static long Allocated => Export<GetNumber>("hbn_stub_allocated")();

    /// <summary>What the stub found wrong first since it was reset; empty when nothing.</summary>
    public static string Problem => Marshal.PtrToStringUTF8(Export<GetText>("hbn_stub_problem")())!;

    /// <summary>Sets a value of the stub, see stub.hpp.</summary>
    public static void Set(string name, long value) => Export<SetNamed>("hbn_stub_set")(Encoding.ASCII.GetBytes(name + '\0'), value);

    /// <summary>How often a function has been called in this process.</summary>
    public static long Calls(string function) => Export<GetNamed>("hbn_stub_calls")(Encoding.ASCII.GetBytes(function + '\0'));

    /// <summary>Forgets settings, problems and sticky errors.</summary>
    public static void Reset() => Export<Act>("hbn_stub_reset")();

    private static T Export<T>(string name)
        where T : Delegate => Marshal.GetDelegateForFunctionPointer<T>(NativeLibrary.GetExport(Library.Value, name));
}

[CollectionDefinition(StubDevice.Collection)]
public sealed class StubDeviceGroup;
