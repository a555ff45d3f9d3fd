using System.Collections.Concurrent;
using System.Globalization;
using System.Text.RegularExpressions;
using HpcBatchNorm.Backends.Cudnn;
using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Cudnn;

/// <summary>The CUDA kernels through NVIDIA's own compiler, where NVRTC is installed; it needs no GPU.</summary>
public sealed partial class CompilationTests
{
    /// <summary>Of compute capabilities 8.0, 9.0 and 10.0 alike.</summary>
    private const int RegistersOfAMultiprocessor = 65536, ThreadsOfAMultiprocessor = 2048;

    private static readonly DataType[] Types = [DataType.Float32, DataType.BFloat16, DataType.Float16];

    // Each takes some seconds; the tests of a class run one after the other.
    private static readonly ConcurrentDictionary<(DataType Type, int Architecture), string> Logs = [];

    public static TheoryData<DataType, int> Targets
    {
        get
        {
            TheoryData<DataType, int> rows = [];
            foreach (DataType type in Types)
            {
                foreach (int architecture in new[] { 80, 90, 100 })
                {
                    rows.Add(type, architecture);
                }
            }

            return rows;
        }
    }

    [Theory]
    [MemberData(nameof(Targets))]
    [Trait("Category", "Slow")]
    public void Kernels_Compile_WithoutWarningsOrSpills(DataType type, int architecture)
    {
        string log = Compile(type, architecture);
        Assert.DoesNotContain("warning", log, StringComparison.OrdinalIgnoreCase);
        string[] spills = [.. Regex.Matches(log, @"(\d+) bytes spill stores").Select(m => m.Groups[1].Value)];
        Assert.NotEmpty(spills);
        Assert.All(spills, s => Assert.Equal("0", s));

        // What the launch bounds ask for, whichever the compiler: a multiprocessor's registers, given out in eights, serve that many blocks at a time.
        int threads = Constant("HBN_BLOCK"), blocks = Constant("HBN_RESIDENT");
        Assert.All(Resources(log), r => Assert.InRange((r.Value.Registers + 7) / 8 * 8 * threads * blocks, 1, RegistersOfAMultiprocessor));
    }

    /// <summary>The compiler is told the bound, so that it need not be lucky; and no launch has more threads than it was told.</summary>
    [Fact]
    public void Kernels_AreBoundByTheLargestLaunch()
    {
        Assert.Contains("__launch_bounds__(HBN_BLOCK, HBN_RESIDENT)", CudaModules.Source, StringComparison.Ordinal);
        Assert.InRange(Constant("HBN_RESIDENT") * Constant("HBN_BLOCK"), 768, ThreadsOfAMultiprocessor);
    }

    /// <summary>native/kernels/resources.csv says what NVRTC 11.8 makes of every kernel. When it does not, here is the new one.</summary>
    [Fact]
    [Trait("Category", "Slow")]
    public void Kernels_Resources_AreThoseOfTheTable()
    {
        Assert.SkipUnless(CudaLibraries.Shared.Nvrtc.Usable, CudaLibraries.Shared.Nvrtc.ToString());
        string version = new NvrtcCompiler(CudaLibraries.Shared.NvrtcApi!).Version.ToString();
        Assert.SkipUnless(version == "11.8", $"the table is NVRTC 11.8's, this is {version}");
        Dictionary<string, (int Registers, int Shared, int Spilled)>[] all = [.. new[] { 80, 90 }.SelectMany(a => Types.Select(t => Resources(Compile(t, a))))];
        string table = string.Concat(all.SelectMany(a => a.Keys).Distinct().Order(StringComparer.Ordinal).Select(n =>
        {
            (int Registers, int Shared, int Spilled)[] found = [.. all.Where(r => r.ContainsKey(n)).Select(r => r[n])];
            string registers = string.Join(',', all.Select(r => r.TryGetValue(n, out var one) ? one.Registers.ToString(CultureInfo.InvariantCulture) : ""));
            return FormattableString.Invariant($"{n},{found.Max(r => r.Shared)},{found.Max(r => r.Spilled)},{registers}\n");
        }));
        string text = KernelTable.Text;
        Assert.True(text.EndsWith(table, StringComparison.Ordinal), $"native/kernels/resources.csv should say:\n{table}");
    }

    /// <summary>A number that the kernels define.</summary>
    private static int Constant(string name) =>
        int.Parse(Regex.Match(CudaModules.Source, $@"^#define {name} (\d+)$", RegexOptions.Multiline).Groups[1].Value, CultureInfo.InvariantCulture);

    private static string Compile(DataType type, int architecture) => Logs.GetOrAdd((type, architecture), _ =>
    {
        CudaLibraries libraries = CudaLibraries.Shared;
        Assert.SkipUnless(libraries.Nvrtc.Usable, libraries.Nvrtc.ToString());
        var compiler = new NvrtcCompiler(libraries.NvrtcApi!);
        Assert.SkipUnless(compiler.Architectures.Contains(architecture), $"NVRTC {compiler.Version} does not know compute capability {architecture / 10}.{architecture % 10}");
        byte[] image = compiler.Compile(CudaModules.Source, "hpcbatchnorm.cu", [.. CudaModules.Options(type, architecture), "--ptxas-options=-v"], out string log);
        Assert.True(image.Length > 10_000, $"the image has {image.Length} bytes");
        return log;
    });

    /// <summary>Registers per thread, static shared memory and spilled bytes of every kernel, as ptxas reports them.</summary>
    private static Dictionary<string, (int Registers, int Shared, int Spilled)> Resources(string log)
    {
        static int Number(Group group) => group.Success ? int.Parse(group.Value, CultureInfo.InvariantCulture) : 0;
        Dictionary<string, (int Registers, int Shared, int Spilled)> resources = Entry().Matches(log).ToDictionary(
            m => m.Groups[1].Value, m => (Number(m.Groups[3]), Number(m.Groups[4]), Number(m.Groups[2])));
        Assert.True(resources.Count > 40, log);
        return resources;
    }

    [GeneratedRegex(@"Compiling entry function '(\w+)' for[^@]*?(\d+) bytes spill stores[^@]*?Used (\d+) registers(?:, (\d+) bytes smem)?")]
    private static partial Regex Entry();
}
