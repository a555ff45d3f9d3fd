using System.Text.RegularExpressions;
using HpcBatchNorm.Backends.Cudnn;
using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Cudnn;

/// <summary>The CUDA kernels through NVIDIA's own compiler, where NVRTC is installed; it needs no GPU.</summary>
public sealed class CompilationTests
{
    public static TheoryData<DataType, int> Targets
    {
        get
        {
            TheoryData<DataType, int> rows = [];
            foreach (DataType type in new[] { DataType.Float32, DataType.BFloat16, DataType.Float16 })
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
        CudaLibraries libraries = CudaLibraries.Shared;
        Assert.SkipUnless(libraries.Nvrtc.Usable, libraries.Nvrtc.ToString());
        var compiler = new NvrtcCompiler(libraries.NvrtcApi!);
        Assert.SkipUnless(compiler.Architectures.Contains(architecture), $"NVRTC {compiler.Version} does not know compute capability {architecture / 10}.{architecture % 10}");

        byte[] image = compiler.Compile(CudaModules.Source, "hpcbatchnorm.cu", [.. CudaModules.Options(type, architecture), "--ptxas-options=-v"], out string log);

        Assert.True(image.Length > 10_000, $"the image has {image.Length} bytes");
        Assert.DoesNotContain("warning", log, StringComparison.OrdinalIgnoreCase);
        string[] spills = [.. Regex.Matches(log, @"(\d+) bytes spill stores").Select(m => m.Groups[1].Value)];
        Assert.NotEmpty(spills);
        Assert.All(spills, s => Assert.Equal("0", s));

        // 65536 registers serve 256 threads of at least three blocks.
        Assert.All(Regex.Matches(log, @"Used (\d+) registers").Select(m => int.Parse(m.Groups[1].Value, System.Globalization.CultureInfo.InvariantCulture)), r => Assert.InRange(r, 1, 80));
    }
}
