using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop.Cuda;

/// <summary>Looks functions up in a loaded library and remembers which names were asked for and which it lacks.</summary>
internal sealed class ExportTable(nint library)
{
    private readonly List<string> _names = [];
    private readonly List<string> _missing = [];

    /// <summary>Every name asked for: what is bound.</summary>
    public IReadOnlyList<string> Names => _names;

    /// <summary>Names the library does not have.</summary>
    public IReadOnlyList<string> Missing => _missing;

    /// <summary>The function's address, 0 when the library lacks it.</summary>
    public nint Get(string name)
    {
        _names.Add(name);
        if (NativeLibrary.TryGetExport(library, name, out nint address))
        {
            return address;
        }

        _missing.Add(name);
        return 0;
    }
}
