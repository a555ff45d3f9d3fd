using System.Runtime.ExceptionServices;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <summary>
/// Batch normalization of a batch that lies in parts on several ranks, which are threads here. The case is that of the whole batch in one process, which the
/// reference computes, knowing of no ranks; each rank gets its images, and what the ranks make is put together again: images one after the other, gradients of
/// scale and shift as sums. What must be the same on all ranks is compared bit for bit.
/// </summary>
internal sealed class RankCaseRunner : CaseRunner
{
    private readonly IReadOnlyList<int> _images;
    private readonly int _batch;
    private readonly HashSet<Tensor> _summed = new(ReferenceEqualityComparer.Instance);
    private readonly Dictionary<Tensor, Tensor>[] _parts;
    private readonly OperationRunner[] _runners;

    public RankCaseRunner(Backend backend, VerificationCase verificationCase)
    {
        _images = verificationCase.RankImages;
        _batch = _images.Sum();
        _parts = [.. _images.Select(_ => new Dictionary<Tensor, Tensor>(ReferenceEqualityComparer.Instance))];
        _runners = new OperationRunner[_images.Count];
        foreach (BatchNormBackward backward in verificationCase.Operations.OfType<BatchNormBackward>())
        {
            _summed.UnionWith([backward.DiffScale, backward.DiffShift]);
        }

        var ranks = new ThreadCollectives.Shared(_images.Count);
        ICollectives? before = backend.Collectives;
        try
        {
            for (int r = 0; r < _runners.Length; r++)
            {
                backend.Collectives = new ThreadCollectives(ranks, r);
                int rank = r;
                _runners[r] = new OperationRunner(backend, verificationCase.Precision, [.. verificationCase.Operations.Select(o => Part(o, rank))]);
            }
        }
        catch
        {
            Dispose();
            throw;
        }
        finally
        {
            backend.Collectives = before;
        }
    }

    public override void Write(Tensor tensor, ReadOnlySpan<double> values)
    {
        for (int r = 0, first = 0; r < _runners.Length; first += _images[r++])
        {
            Tensor part = Part(tensor, r)!;
            int image = tensor.Shape.ImageCount;
            if (IsSplit(tensor))
            {
                _runners[r].Write(part, values.Slice(first * image, _images[r] * image));
            }
            else
            {
                _runners[r].Write(part, r > 0 && _summed.Contains(tensor) ? new double[values.Length] : values);
            }
        }
    }

    public override void Write(Tensor tensor, ReadOnlySpan<int> values) => throw NoIntegers(tensor);

    public override void Write(Tensor tensor, ReadOnlySpan<byte> values) => throw NoIntegers(tensor);

    public override double[] ReadDouble(Tensor tensor)
    {
        double[][] parts = [.. _runners.Select((runner, r) => runner.ReadDouble(Part(tensor, r)!))];
        if (IsSplit(tensor))
        {
            return [.. parts.SelectMany(p => p)];
        }

        if (_summed.Contains(tensor))
        {
            return [.. parts[0].Select((_, i) => parts.Sum(p => p[i]))];
        }

        for (int r = 1; r < parts.Length; r++)
        {
            if (!parts[r].AsSpan().SequenceEqual(parts[0]))
            {
                Problems.Add($"{tensor.Name} of rank {r} is not that of rank 0");
            }
        }

        return parts[0];
    }

    public override void Execute(int operation, in StepContext context)
    {
        StepContext step = context;
        var errors = new Exception?[_runners.Length];
        Thread[] threads = [.. _runners.Select((runner, r) => new Thread(() =>
        {
            try
            {
                runner.Kernels[operation].Execute(step);
            }
            catch (Exception error)
            {
                errors[r] = error;
            }
        }))];
        Array.ForEach(threads, t => t.Start());
        Array.ForEach(threads, t => t.Join());

        // A rank that fails leaves the others waiting until they give up: the first cause is another one's.
        Exception? first = errors.FirstOrDefault(e => e is not null and not TimeoutException) ?? errors.FirstOrDefault(e => e is not null);
        if (first is not null)
        {
            ExceptionDispatchInfo.Throw(first);
        }
    }

    public override string Implementation(int operation) => _runners[0].Kernels[operation].Implementation;

    public override void Dispose()
    {
        foreach (OperationRunner? runner in _runners)
        {
            runner?.Dispose();
        }
    }

    private static NotSupportedException NoIntegers(Tensor tensor) => new($"'{tensor.Name}': a case of several ranks has no labels and no pixels.");

    private bool IsSplit(Tensor tensor) => tensor.Shape.N == _batch;

    /// <summary>An operation of the whole batch, made for a rank's images and joined with the other ranks'.</summary>
    private Operation Part(Operation operation, int rank) => operation switch
    {
        BatchNormForward o => o with
        {
            Spec = o.Spec with { Src = o.Spec.Src with { N = _images[rank] } },
            Src = Part(o.Src, rank)!,
            Dst = Part(o.Dst, rank)!,
            Scale = Part(o.Scale, rank)!,
            Shift = Part(o.Shift, rank)!,
            Residual = Part(o.Residual, rank),
            Mean = Part(o.Mean, rank),
            Variance = Part(o.Variance, rank),
            RunningMean = Part(o.RunningMean, rank),
            RunningVariance = Part(o.RunningVariance, rank),
            Synchronized = true,
        },
        BatchNormBackward o => o with
        {
            Spec = o.Spec with { Src = o.Spec.Src with { N = _images[rank] } },
            Src = Part(o.Src, rank)!,
            Dst = Part(o.Dst, rank),
            Scale = Part(o.Scale, rank)!,
            Shift = Part(o.Shift, rank)!,
            Mean = Part(o.Mean, rank)!,
            Variance = Part(o.Variance, rank)!,
            DiffDst = Part(o.DiffDst, rank)!,
            SecondDiffDst = Part(o.SecondDiffDst, rank),
            DiffSrc = Part(o.DiffSrc, rank)!,
            DiffScale = Part(o.DiffScale, rank)!,
            DiffShift = Part(o.DiffShift, rank)!,
            DiffResidual = Part(o.DiffResidual, rank),
            Synchronized = true,
        },
        _ => throw new NotSupportedException($"{operation.Kind} '{operation.Name}' joins nothing over ranks."),
    };

    /// <summary>A rank's part of a tensor: its images, or a copy of what belongs to all.</summary>
    private Tensor? Part(Tensor? tensor, int rank)
    {
        if (tensor is null || _parts[rank].TryGetValue(tensor, out Tensor? part))
        {
            return tensor is null ? null : _parts[rank][tensor];
        }

        if (tensor.Parent is not null)
        {
            throw new NotSupportedException($"'{tensor.Name}': a case of several ranks has no views.");
        }

        part = new Tensor(tensor.Name, IsSplit(tensor) ? tensor.Shape with { N = _images[rank] } : tensor.Shape, tensor.Role, tensor.Layout, tensor.DataType);
        _parts[rank].Add(tensor, part);
        return part;
    }
}

/// <summary>Ranks that are threads of this process, as far as batch statistics need them.</summary>
internal sealed class ThreadCollectives(ThreadCollectives.Shared shared, int rank) : ICollectives
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    public int Rank => rank;

    public int Ranks => shared.Given.Length;

    public ICollectiveMean CreateMean(IReadOnlyList<HostValues> pieces, bool narrow) => throw new NotSupportedException("Ranks of a case join batch statistics and average nothing.");

    public void AllGather(ReadOnlySpan<double> mine, Span<double> all, int members)
    {
        shared.Given[rank] = mine.ToArray();
        Meet();
        int first = rank / members * members;
        for (int r = 0; r < members; r++)
        {
            shared.Given[first + r].CopyTo(all[(r * mine.Length)..]);
        }

        Meet();
    }

    private void Meet()
    {
        if (!shared.Barrier.SignalAndWait(Patience))
        {
            throw new TimeoutException("The other ranks did not come to join their statistics.");
        }
    }

    /// <summary>What they have in common.</summary>
    public sealed class Shared(int ranks)
    {
        public Barrier Barrier { get; } = new(ranks);

        public double[][] Given { get; } = new double[ranks][];
    }
}
