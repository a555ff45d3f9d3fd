using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;

namespace HpcBatchNorm.Interop.Cuda;

/// <summary>CUDA C++ to machine code for one architecture.</summary>
internal sealed unsafe class NvrtcCompiler(NvrtcApi api)
{
    /// <summary>NVRTC's version: 13.0.</summary>
    public Version Version
    {
        get
        {
            int major = 0, minor = 0;
            Check(api.nvrtcVersion(&major, &minor), "asking NVRTC's version");
            return new Version(major, minor);
        }
    }

    /// <summary>Architectures it compiles for, e.g. 80 for compute capability 8.0.</summary>
    public IReadOnlyList<int> Architectures
    {
        get
        {
            int count = 0;
            Check(api.nvrtcGetNumSupportedArchs(&count), "asking NVRTC's architectures");
            int[] architectures = new int[count];
            fixed (int* first = architectures)
            {
                Check(api.nvrtcGetSupportedArchs(first), "asking NVRTC's architectures");
            }

            return architectures;
        }
    }

    /// <summary>Compiles to a CUBIN. <paramref name="log"/> holds warnings and what options asked for.</summary>
    /// <exception cref="NativeException">It does not compile; the message ends with the compiler's log.</exception>
    public byte[] Compile(string source, string name, IReadOnlyList<string> options, out string log)
    {
        nint program = 0;
        fixed (byte* sourceText = Encoding.UTF8.GetBytes(source + '\0'), nameText = Encoding.UTF8.GetBytes(name + '\0'))
        {
            Check(api.nvrtcCreateProgram(&program, sourceText, nameText, 0, null, null), "compiling the kernels");
        }

        try
        {
            int status = Compile(program, options);
            log = Log(program);
            if (status != NvrtcApi.Success)
            {
                throw new NativeException("NVRTC", StatusText(status), $"compiling the kernels ({string.Join(' ', options)})", log.Length == 0 ? "no log" : log);
            }

            nuint size = 0;
            Check(api.nvrtcGetCUBINSize(program, &size), "compiling the kernels");
            byte[] image = new byte[checked((int)size)];
            fixed (byte* first = image)
            {
                Check(api.nvrtcGetCUBIN(program, first), "compiling the kernels");
            }

            return image;
        }
        finally
        {
            _ = api.nvrtcDestroyProgram(&program);
        }
    }

    private int Compile(nint program, IReadOnlyList<string> options)
    {
        nint[] texts = new nint[options.Count];
        try
        {
            for (int i = 0; i < texts.Length; i++)
            {
                texts[i] = Marshal.StringToCoTaskMemUTF8(options[i]);
            }

            fixed (nint* first = texts)
            {
                return api.nvrtcCompileProgram(program, texts.Length, (byte**)first);
            }
        }
        finally
        {
            Array.ForEach(texts, Marshal.FreeCoTaskMem);
        }
    }

    private string Log(nint program)
    {
        nuint size = 0;
        if (api.nvrtcGetProgramLogSize(program, &size) != NvrtcApi.Success || size <= 1)
        {
            return "";
        }

        byte[] text = new byte[checked((int)size)];
        fixed (byte* first = text)
        {
            Check(api.nvrtcGetProgramLog(program, first), "compiling the kernels");
        }

        return Encoding.UTF8.GetString(text).TrimEnd('\0', '\n', ' ');
    }

    private void Check(int status, string operation)
    {
        if (status != NvrtcApi.Success)
        {
            throw new NativeException("NVRTC", StatusText(status), operation, "see NVRTC's documentation of this status");
        }
    }

    private string StatusText(int status) =>
        (Marshal.PtrToStringUTF8((nint)api.nvrtcGetErrorString(status)) ?? "unknown status") + string.Create(CultureInfo.InvariantCulture, $" ({status})");
}
