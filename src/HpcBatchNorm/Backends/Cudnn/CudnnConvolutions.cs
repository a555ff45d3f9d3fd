using System.Globalization;
using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Cudnn;

/// <content>
/// Convolution and fully connected layers by cuDNN, a fully connected layer as a 1x1 convolution of one position. What cuDNN's descriptors cannot say
/// (padding that differs between two sides and matters) or its engines refuse is computed by our own kernel, slowly; the plan shows it as native.
/// </content>
internal sealed partial class CudnnBackend
{
    /// <summary>A convolution as cuDNN sees it: the three tensors by their names in the forward pass.</summary>
    private sealed record Problem(
        CudnnPass Pass, DataType Type, Precision Precision, ConvolutionSpec Spec, int SrcStride, int DstStride, string Operation)
    {
        /// <summary>True where padding is the same on both sides, or what the other side has more or less is not reached by any window.</summary>
        public bool HasEvenPadding =>
            Window.Outputs(Spec.Src.H, Spec.KernelH, Spec.StrideH, Spec.PadTop, Spec.PadTop, Spec.DilationH) == Spec.Dst.H &&
            Window.Outputs(Spec.Src.W, Spec.KernelW, Spec.StrideW, Spec.PadLeft, Spec.PadLeft, Spec.DilationW) == Spec.Dst.W;

        public override string ToString() => string.Create(CultureInfo.InvariantCulture,
            $"{Pass} {Precision.Word()} {Spec.Src} stride {SrcStride} -> {Spec.Dst} stride {DstStride} kernel {Spec.KernelH}x{Spec.KernelW} step {Spec.StrideH}x{Spec.StrideW} pad {Spec.PadTop}x{Spec.PadLeft} dilation {Spec.DilationH}x{Spec.DilationW} groups {Spec.Groups}");
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ConvolutionForward operation, BufferMap buffers) =>
        CreateForward(operation, buffers, operation.Spec, operation.Src, operation.Weights, operation.Bias, operation.Dst, operation.Relu, operation.Residual);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ConvolutionBackwardData operation, BufferMap buffers) =>
        CreateBackwardData(operation, buffers, operation.Spec, operation.DiffDst, operation.Weights, operation.DiffSrc);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ConvolutionBackwardWeights operation, BufferMap buffers) =>
        CreateBackwardWeights(operation, buffers, operation.Spec, operation.Src, operation.DiffDst, operation.DiffWeights, operation.DiffBias);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(InnerProductForward operation, BufferMap buffers) => operation.Src.DataType != operation.Dst.DataType
        ? CreateLogits(operation, buffers)
        : CreateForward(operation, buffers, AsConvolution(operation, operation.Spec, Buffer(buffers, operation.Src)), operation.Src, operation.Weights, operation.Bias, operation.Dst, false);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(InnerProductBackwardData operation, BufferMap buffers) =>
        CreateBackwardData(operation, buffers, AsConvolution(operation, operation.Spec, Buffer(buffers, operation.DiffSrc)), operation.DiffDst, operation.Weights, operation.DiffSrc);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(InnerProductBackwardWeights operation, BufferMap buffers) =>
        CreateBackwardWeights(operation, buffers, AsConvolution(operation, operation.Spec, Buffer(buffers, operation.Src)), operation.Src, operation.DiffDst, operation.DiffWeights, operation.DiffBias);

    private static ConvolutionSpec AsConvolution(Operation operation, in InnerProductSpec spec, CudnnBuffer src)
    {
        if (spec.Src.Area > 1 && !src.IsDense)
        {
            throw new NotSupportedException($"{CudnnKernel.Describe(operation)}: '{src.Tensor.Name}' is a slice whose images are not contiguous.");
        }

        return new ConvolutionSpec(new Shape(spec.Src.N, spec.Src.ImageCount, 1, 1), spec.Outputs, 1, 1);
    }

    /// <summary>A fully connected layer from 16-bit factors to single precision, as logits are.</summary>
    private CudnnKernel CreateLogits(InnerProductForward operation, BufferMap buffers)
    {
        const int Lanes = 32;
        CudnnBuffer src = Buffer(buffers, operation.Src), weights = Buffer(buffers, operation.Weights), dst = Buffer(buffers, operation.Dst);
        CheckTypes(operation, src, weights);
        ConvolutionSpec spec = AsConvolution(operation, operation.Spec, src);
        if (operation.Dst.DataType != DataType.Float32)
        {
            throw new NotSupportedException($"{CudnnKernel.Describe(operation)}: from {operation.Src.DataType} to {operation.Dst.DataType}.");
        }

        string name = CudnnKernel.Describe(operation);
        LaunchShape shape = new((spec.OutputChannels + 256 / Lanes - 1) / (256 / Lanes), Math.Min(spec.Src.N, MostLayers), 1, Lanes, 256 / Lanes, 256 * sizeof(float));
        List<CudnnStep> steps =
        [
            Launch("inner_product_to_float", operation.Src.DataType, shape, name)
                .Address(src).Number((uint)Stride(src, spec.Src)).Address(weights).Matrix(dst).Number(spec.Src.N).Number(spec.Src.C).Number(spec.OutputChannels),
        ];
        if (operation.Bias is not null)
        {
            steps.Add(Launch("add_bias_float", operation.Src.DataType, Spread(spec.Dst.Count), name)
                .Matrix(dst).Address(Buffer(buffers, operation.Bias)).Number(dst.Rows).Number(dst.Columns).Moves(2 * Traffic(dst)));
        }

        return Native(operation, Traffic(src, weights, dst) + 2 * (steps.Count - 1) * Traffic(dst), [.. steps]);
    }

    private CudnnKernel CreateForward(
        Operation operation, BufferMap buffers, in ConvolutionSpec spec, Tensor src, Tensor weights, Tensor? bias, Tensor dst, bool relu,
        Tensor? residual = null)
    {
        CudnnBuffer s = Buffer(buffers, src), w = Buffer(buffers, weights), d = Buffer(buffers, dst);
        CheckTypes(operation, s, w, d);
        Problem problem = new(CudnnPass.Forward, src.DataType, buffers.Precision, spec, Stride(s, spec.Src), d.RowStride, CudnnKernel.Describe(operation));
        if (_options.LibraryRelu && relu && bias is not null && ConvolveWithRelu(operation, problem, s, w, d, Buffer(buffers, bias), Optional(buffers, residual)) is { } together)
        {
            return together;
        }

        bool inPlace = residual is not null && residual.Root == dst.Root && residual.RootChannelOffset == dst.RootChannelOffset;
        (string implementation, long scratch, CudnnStep[] convolution) = ComputeSlice(problem, s, w, d, add: residual is not null);
        List<CudnnStep> steps = [.. convolution];
        if (residual is not null && !inPlace)
        {
            CudnnBuffer r = Buffer(buffers, residual);
            CheckTypes(operation, d, r);
            steps.Insert(0, Spread("copy", operation, r, r, d).Matrix(r).Matrix(d).Number(r.Rows).Number(r.Columns).Moves(Traffic(r, d)));
        }

        if (bias is not null)
        {
            bool wide = IsWide(d);
            CudnnBuffer b = Buffer(buffers, bias);
            implementation += src.DataType.IsNarrow() ? " 16-bit-result" : "";
            long widened = (scratch + 255) & ~255L;
            CudnnLaunch add = Launch(Form("add_bias", wide), dst.DataType, Spread((long)d.Rows * d.Columns / Width(dst.DataType, wide)), problem.Operation).Matrix(d);
            if (bias.DataType.IsNarrow())
            {
                // For the library, which then refused it.
                scratch = widened + d.Columns * sizeof(float);
                steps.Add(Launch("copy_to_float", bias.DataType, Spread(d.Columns), problem.Operation)
                    .Address(b).Number((uint)d.Columns).Scratch(widened).Number((uint)d.Columns).Number(1).Number(d.Columns).Moves(0));
            }

            steps.Add((bias.DataType.IsNarrow() ? add.Scratch(widened) : add.Address(b)).Number(d.Rows).Number(d.Columns).Flag(relu).Moves(2 * Traffic(d)));
        }
        else if (relu)
        {
            steps.Add(Activation(d, d, ActivationKind.Relu, problem.Operation).Moves(2 * Traffic(d)));
        }

        // The convolution reads its operands and writes dst, to which it adds with a residual; the other launches say what they move.
        long convolved = Traffic(s, w, d) + (residual is null ? 0 : Traffic(d));
        return new CudnnKernel(this, operation, implementation, scratch, convolved + steps.Sum(m => m.Bytes ?? 0), [.. steps]);
    }

    private CudnnKernel CreateBackwardData(Operation operation, BufferMap buffers, in ConvolutionSpec spec, Tensor diffDst, Tensor weights, Tensor diffSrc)
    {
        CudnnBuffer d = Buffer(buffers, diffDst), w = Buffer(buffers, weights), s = Buffer(buffers, diffSrc);
        CheckTypes(operation, d, w, s);
        Problem problem = new(CudnnPass.BackwardData, diffDst.DataType, buffers.Precision, spec, Stride(s, spec.Src), d.RowStride, CudnnKernel.Describe(operation));
        (string implementation, long scratch, CudnnStep[] steps) = Compute(problem, w, d, s);
        return new CudnnKernel(this, operation, implementation, scratch, Traffic(s, w, d), steps);
    }

    private CudnnKernel CreateBackwardWeights(
        Operation operation, BufferMap buffers, in ConvolutionSpec spec, Tensor src, Tensor diffDst, Tensor diffWeights, Tensor? diffBias)
    {
        CudnnBuffer s = Buffer(buffers, src), d = Buffer(buffers, diffDst), w = Buffer(buffers, diffWeights);
        CheckTypes(operation, s, d);
        Problem problem = new(CudnnPass.BackwardFilter, src.DataType, buffers.Precision, spec, Stride(s, spec.Src), d.RowStride, CudnnKernel.Describe(operation));

        // cuDNN writes the gradient in the activations' type, of as many channels as src has with its zeros. The optimizer takes it in that type; where several
        // are to be added up, single precision is wanted.
        bool padded = s.PaddedColumns > s.Columns, widen = src.DataType.IsNarrow() && diffWeights.DataType == DataType.Float32;
        int rows = (int)(w.Tensor.Shape.Count / w.Columns), columns = padded ? s.PaddedColumns : w.Columns;
        long narrow = widen || padded ? ((long)rows * columns * src.DataType.Bytes() + 255) & ~255L : 0;
        (string implementation, long scratch, CudnnStep[] convolution) = Compute(problem, s, d, w, narrow);
        List<CudnnStep> steps = [.. convolution];
        bool byLibrary = convolution[0] is not CudnnLaunch;
        long bytes = Traffic(s, w, d);
        if (src.DataType.IsNarrow() && byLibrary)
        {
            implementation += " 16-bit-result";
        }

        if (narrow > 0 && byLibrary)
        {
            long copied = w.Tensor.Shape.Count * (w.ElementBytes + src.DataType.Bytes());
            bytes += w.Tensor.Shape.Count * w.ElementBytes;
            steps.Add(Launch(widen ? "copy_to_float" : "copy_single", src.DataType, Spread(w.Tensor.Shape.Count), problem.Operation)
                .Scratch().Number((uint)columns).Address(w).Number((uint)w.Columns).Number(rows).Number(w.Columns).Moves(copied));
        }

        if (diffBias is not null)
        {
            bool wide = IsWide(d);
            int width = Width(diffDst.DataType, wide);
            LaunchShape shape = Reduction(d.Columns, d.Rows, width, 1, sums: 1);
            long partials = (scratch + 255) & ~255L;
            steps.Add(Launch(Form("column_sums", wide), diffDst.DataType, shape, problem.Operation)
                .Matrix(d).Number(d.Columns).Number(d.Rows).Scratch(partials).Number(_counters).Address(Buffer(buffers, diffBias)).Moves(Traffic(d)));
            bytes += Traffic(d);
            scratch = partials + (long)shape.GridY * d.Columns * sizeof(float);
        }

        return new CudnnKernel(this, operation, implementation, scratch, bytes, [.. steps]);
    }

    /// <summary>
    /// The computation of c from a and b (in cuDNN's order of the pass) and the scratch memory it needs, of which the first <paramref name="narrow"/> bytes
    /// take the result in cuDNN's place of c. With <paramref name="add"/>, which the forward pass knows, it is added to what c holds.
    /// </summary>
    private (string Implementation, long Scratch, CudnnStep[] Steps) Compute(
        Problem problem, CudnnBuffer a, CudnnBuffer b, CudnnBuffer c, long narrow = 0, bool add = false) =>
        ByLibrary(problem, a, b, c, narrow, add) ?? Direct(problem, a, b, c, add);

    /// <summary>
    /// As <see cref="Compute"/> for the forward pass, whose dst may be a slice of a concatenation: where the library refuses rows that lie further apart but not
    /// dense ones, it computes these in scratch memory and a launch copies them.
    /// </summary>
    private (string Implementation, long Scratch, CudnnStep[] Steps) ComputeSlice(Problem problem, CudnnBuffer src, CudnnBuffer weights, CudnnBuffer dst, bool add)
    {
        if (ByLibrary(problem, src, weights, dst, add: add) is { } found)
        {
            return found;
        }

        long bytes = (dst.Tensor.Shape.Count * dst.ElementBytes + 255) & ~255L;
        if (dst.IsDense || add || ByLibrary(problem with { DstStride = dst.Columns }, src, weights, dst, narrow: bytes) is not { } dense)
        {
            return Direct(problem, src, weights, dst, add);
        }

        bool wide = IsWide(dst);
        DataType type = dst.Tensor.DataType;
        CudnnLaunch copy = Launch(Form("copy", wide), type, Spread((long)dst.Rows * dst.Columns / Width(type, wide)), problem.Operation)
            .Scratch().Number((uint)dst.Columns).Matrix(dst).Number(dst.Rows).Number(dst.Columns).Moves(2 * Traffic(dst));
        return (dense.Implementation + ", copied to its slice", dense.Scratch, [.. dense.Steps, copy]);
    }

    /// <summary><see cref="Compute"/> by cuDNN; null where it cannot say the problem or refuses it.</summary>
    private (string Implementation, long Scratch, CudnnStep[] Steps)? ByLibrary(
        Problem problem, CudnnBuffer a, CudnnBuffer b, CudnnBuffer c, long narrow = 0, bool add = false)
    {
        if (!problem.HasEvenPadding)
        {
            return null;
        }

        PaddedWeights? padded = problem.Pass == CudnnPass.Forward ? Padded(problem, a, b, narrow) : null;
        long before = narrow + (padded?.Bytes ?? 0);
        CudnnStep[] Steps(Action<nint> call, CudnnConvolution? convolution)
        {
            CudnnCall step = new(LibraryName(problem.Pass), problem.Type, call, convolution);
            return padded is { } first ? [first.Launch, step] : [step];
        }

        if (_device is null)
        {
            return ("cudnn, chosen by search on the device", before, Steps(_ => { }, null));
        }

        if (Choose(problem, a, b, c, narrow) is not { } found)
        {
            return null;
        }

        (CudnnConvolution convolution, CudnnAlgorithm choice) = found;
        void Execute(nint scratch) => convolution.Execute(
            a.Address, padded is null ? b.Address : scratch + (nint)narrow, narrow > 0 ? scratch : c.Address, choice.Algorithm, scratch + (nint)before, choice.WorkspaceBytes, add);
        return (AlgorithmText(problem, choice), before + choice.WorkspaceBytes, Steps(Execute, convolution));
    }

    /// <summary>A problem as cuDNN's, ready to be executed by the algorithm that is the fastest; null where cuDNN cannot say it or refuses it.</summary>
    private (CudnnConvolution Convolution, CudnnAlgorithm Choice)? Choose(Problem problem, CudnnBuffer a, CudnnBuffer b, CudnnBuffer c, long narrow)
    {
        if (!problem.HasEvenPadding)
        {
            return null;
        }

        // Src is a or, going back to it, c, which then has no zeros behind its channels.
        if (problem.Pass != CudnnPass.BackwardData && a.PaddedColumns > a.Columns)
        {
            problem = problem with { Spec = problem.Spec with { Src = problem.Spec.Src.WithChannels(a.PaddedColumns) } };
        }

        CudnnConvolution convolution = Describe(problem);
        try
        {
            int? math = problem.Precision == Precision.Fp32 ? CudnnApi.MathFma : null;
            string key = string.Create(CultureInfo.InvariantCulture, $"{problem} on {_device!.Name} with cuDNN {_cudnn!.Version}");
            long size = problem.Type.Bytes();
            long weights = problem.Spec.Weights.Count;
            (long A, long B, long C) bytes = problem.Pass switch
            {
                CudnnPass.Forward => (Span(a) * size, weights * size, Span(c) * size),
                CudnnPass.BackwardData => (weights * size, Span(b) * size, Span(c) * size),
                _ => (Span(a) * size, Span(b) * size, weights * size),
            };
            (long A, long B, long C) offsets = (a.Misalignment, b.Misalignment, narrow > 0 ? 0 : c.Misalignment);
            if (offsets != (0, 0, 0))
            {
                key += FormattableString.Invariant($" from bytes {offsets.A}, {offsets.B}, {offsets.C}");
            }

            if (_choices.Choose(_device, convolution, key, bytes, offsets, math) is { } choice)
            {
                convolution.Use(choice);
                return (convolution, choice);
            }

            convolution.Dispose();
            return null;
        }
        catch (NotSupportedException)
        {
            convolution.Dispose();
            return null;
        }
        catch
        {
            convolution.Dispose();
            throw;
        }
    }

    private static string AlgorithmText(Problem problem, CudnnAlgorithm choice) =>
        FormattableString.Invariant($"cudnn {AlgorithmName(problem.Pass, choice.Algorithm)}{(choice.MathType == CudnnApi.MathFma ? "" : " tensor-core")}");

    /// <summary>cuDNN's number of an element type.</summary>
    private static int TypeCode(DataType type) => type switch { DataType.BFloat16 => CudnnApi.BFloat16, DataType.Float16 => CudnnApi.Half, _ => CudnnApi.Float };

    private CudnnConvolution Describe(Problem problem)
    {
        ConvolutionSpec spec = problem.Spec;
        int type = TypeCode(problem.Type);
        int math = problem.Precision switch { Precision.Fp32 => CudnnApi.MathFma, Precision.Tf32 => CudnnApi.MathDefault, _ => CudnnApi.MathTensorOp };
        List<IDisposable> made = [];
        try
        {
            CudnnDescriptor src = Keep(_cudnn!.Tensor(type, spec.Src.N, spec.Src.C, spec.Src.H, spec.Src.W, problem.SrcStride, problem.Operation));
            CudnnDescriptor dst = Keep(_cudnn.Tensor(type, spec.Dst.N, spec.Dst.C, spec.Dst.H, spec.Dst.W, problem.DstStride, problem.Operation));
            CudnnDescriptor weights = Keep(_cudnn.Filter(type, spec.OutputChannels, spec.Src.C / spec.Groups, spec.KernelH, spec.KernelW, problem.Operation));
            CudnnDescriptor convolution = Keep(_cudnn.Convolution(
                spec.PadTop, spec.PadLeft, spec.StrideH, spec.StrideW, spec.DilationH, spec.DilationW, spec.Groups, math, problem.Operation));
            (CudnnDescriptor a, CudnnDescriptor b, CudnnDescriptor c) = problem.Pass switch
            {
                CudnnPass.Forward => (src, weights, dst),
                CudnnPass.BackwardData => (weights, dst, src),
                _ => (src, dst, weights),
            };
            return new CudnnConvolution(_cudnn, problem.Pass, a, b, convolution, c, problem.Operation);
        }
        catch
        {
            made.ForEach(m => m.Dispose());
            throw;
        }

        CudnnDescriptor Keep(CudnnDescriptor descriptor)
        {
            made.Add(descriptor);
            return descriptor;
        }
    }

    /// <summary>By our own kernel.</summary>
    private (string Implementation, long Scratch, CudnnStep[] Steps) Direct(Problem problem, CudnnBuffer a, CudnnBuffer b, CudnnBuffer c, bool add)
    {
        ConvolutionSpec spec = problem.Spec;
        ReadOnlySpan<int> numbers =
        [
            spec.Src.N, spec.Src.H, spec.Src.W, spec.Src.C, spec.Dst.H, spec.Dst.W, spec.Dst.C, spec.KernelH, spec.KernelW, spec.StrideH, spec.StrideW,
            spec.PadTop, spec.PadLeft, spec.DilationH, spec.DilationW, spec.Groups,
        ];
        CudnnLaunch launch = problem.Pass switch
        {
            CudnnPass.Forward => Launch("convolution_forward", problem.Type, Spread(spec.Dst.Count), problem.Operation)
                .Address(a).Number((uint)problem.SrcStride).Address(b).Address(c).Number((uint)problem.DstStride),
            CudnnPass.BackwardData => Launch("convolution_backward_data", problem.Type, Spread(spec.Src.Count), problem.Operation)
                .Address(b).Number((uint)problem.DstStride).Address(a).Address(c).Number((uint)problem.SrcStride),
            _ => Launch("convolution_backward_weights", problem.Type, new LaunchShape((int)spec.Weights.Count, 1, 1, 256, 1, 256 * sizeof(float)), problem.Operation)
                .Address(a).Number((uint)problem.SrcStride).Address(b).Number((uint)problem.DstStride).Address(c),
        };
        launch.Numbers(numbers);
        bool last = problem.Pass == CudnnPass.Forward ? add : c.Tensor.DataType.IsNarrow();
        return ("native direct", 0, [problem.Pass == CudnnPass.BackwardData ? launch : launch.Flag(last)]);
    }

    private static string LibraryName(CudnnPass pass) => pass switch
    {
        CudnnPass.Forward => "cudnn convolution forward",
        CudnnPass.BackwardData => "cudnn convolution backward-data",
        _ => "cudnn convolution backward-weights",
    };

    /// <summary>cuDNN's names of its algorithms.</summary>
    private static string AlgorithmName(CudnnPass pass, int algorithm) => pass switch
    {
        CudnnPass.Forward => algorithm switch
        {
            0 => "implicit-gemm",
            1 => "implicit-precomp-gemm",
            2 => "gemm",
            3 => "direct",
            4 => "fft",
            5 => "fft-tiling",
            6 => "winograd",
            7 => "winograd-nonfused",
            _ => FormattableString.Invariant($"forward-{algorithm}"),
        },
        CudnnPass.BackwardData => algorithm switch
        {
            0 => "algo-0",
            1 => "algo-1",
            2 => "fft",
            3 => "fft-tiling",
            4 => "winograd",
            5 => "winograd-nonfused",
            _ => FormattableString.Invariant($"data-{algorithm}"),
        },
        _ => algorithm switch
        {
            0 => "algo-0",
            1 => "algo-1",
            2 => "fft",
            3 => "algo-3",
            4 => "winograd",
            5 => "winograd-nonfused",
            6 => "fft-tiling",
            _ => FormattableString.Invariant($"filter-{algorithm}"),
        },
    };

    /// <summary>The distance of a convolution's source rows: the buffer's, except where a fully connected layer takes a whole image as one row.</summary>
    private static int Stride(CudnnBuffer buffer, Shape shape) => buffer.Columns == shape.C ? buffer.RowStride : shape.C;

    /// <summary>Elements from the first to the last of a tensor.</summary>
    private static long Span(CudnnBuffer buffer) => (long)buffer.Rows * buffer.RowStride;

    private static long Traffic(params ReadOnlySpan<CudnnBuffer> buffers)
    {
        long bytes = 0;
        foreach (CudnnBuffer buffer in buffers)
        {
            bytes += (long)buffer.Rows * buffer.PaddedColumns * buffer.ElementBytes;
        }

        return bytes;
    }

    private static void CheckTypes(Operation operation, CudnnBuffer first, params ReadOnlySpan<CudnnBuffer> others)
    {
        foreach (CudnnBuffer other in others)
        {
            if (other.Tensor.DataType != first.Tensor.DataType)
            {
                throw new NotSupportedException(
                    $"{CudnnKernel.Describe(operation)}: '{first.Tensor.Name}' is {first.Tensor.DataType} but '{other.Tensor.Name}' is {other.Tensor.DataType}; cuDNN wants one type.");
            }
        }
    }
}
