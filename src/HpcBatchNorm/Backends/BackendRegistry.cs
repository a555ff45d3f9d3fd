using HpcBatchNorm.Backends.Cudnn;
using HpcBatchNorm.Backends.OneDnn;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Interop.Cuda;

namespace HpcBatchNorm.Backends;

/// <content>Which backends there are.</content>
public abstract partial class Backend
{
    /// <summary>Every backend this version knows, with whether it can be used on this machine and, in words, what was looked for, where, and found.</summary>
    public static IReadOnlyList<BackendProbe> Probe()
    {
        LoadReport hbn = NativeLibraries.Hbn;
        return
        [
            new BackendProbe("reference", true, "pure C#, double precision; always available"),
            new BackendProbe("onednn", hbn.Loaded, hbn.Text),
            new BackendProbe("cudnn", CudaLibraries.Shared.Available, CudaLibraries.Shared.Text),
        ];
    }

    /// <summary>Creates a backend.</summary>
    /// <param name="name"><c>reference</c>, <c>onednn</c>, or <c>auto</c> for the fastest that this version has (onednn; never the reference).</param>
    /// <param name="options">Threads and algorithms; null for the defaults.</param>
    /// <exception cref="UserErrorException">There is no such backend, or it cannot be used here; the message holds the report and the fix.</exception>
    public static Backend Create(string name, BackendOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(name);
        options ??= new BackendOptions();
        switch (name)
        {
            case "reference":
                return new ReferenceBackend(options);
            case "auto" or "onednn":
                LoadReport hbn = NativeLibraries.Hbn;
                return hbn.Loaded
                    ? new OneDnnBackend(options)
                    : throw new UserErrorException(
                        $"The backend 'onednn' cannot be used here.\n{hbn.Text}\n" +
                        "The backend 'reference' works everywhere, but is thousands of times slower; it is never chosen by itself.");
            case "cudnn":
                CudaLibraries cuda = CudaLibraries.Shared;
                return cuda.Available
                    ? CudnnBackend.Open(CudnnBackend.Remembering(options), cuda)
                    : throw new UserErrorException($"The backend 'cudnn' cannot be used here.\n{cuda.Text}");
            default:
                throw new UserErrorException($"There is no backend '{name}'; there are auto, reference, onednn and cudnn.");
        }
    }

    /// <summary>
    /// Creates a backend to plan with: like <see cref="Create"/>, but <c>cudnn</c> needs neither its libraries nor a device then. Executing on it fails.
    /// </summary>
    /// <exception cref="UserErrorException">As <see cref="Create"/>.</exception>
    internal static Backend CreateForPlanning(string name, BackendOptions? options = null) =>
        name == "cudnn" && !CudaLibraries.Shared.Available ? CudnnBackend.ForPlanning(options ?? new BackendOptions()) : Create(name, options);
}
