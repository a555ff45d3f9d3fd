namespace HpcBatchNorm.Backends;

/// <summary>
/// What ranks exchange in the middle of a batch normalization over the images of all of them: one message each way per pass, of a few numbers per channel. Joined in
/// double, in the order of the ranks, so that all have the same bits. Allocates nothing after it was made.
/// </summary>
/// <param name="ranks">Who exchanges.</param>
/// <param name="members">How many of them in a row; 0: all.</param>
/// <param name="statistics">How many statistics there are: channels, or activations.</param>
/// <param name="count">Values of this rank behind each.</param>
internal sealed class JoinedStatistics(ICollectives ranks, int members, int statistics, double count)
{
    private readonly double[] _mine = new double[2 * statistics + 1], _all = new double[(2 * statistics + 1) * (members == 0 ? ranks.Ranks : members)];

    /// <summary>How many ranks join theirs.</summary>
    public int Members => members == 0 ? ranks.Ranks : members;

    /// <summary>Values of all ranks behind each statistic, once something was joined.</summary>
    public double Count { get; private set; }

    /// <summary>Count / (Count - 1), which makes the biased variance an unbiased one.</summary>
    public double UnbiasedFactor => Count > 1 ? Count / (Count - 1) : 1;

    /// <summary>This rank's means, then those of all.</summary>
    public Span<double> First => _mine.AsSpan(0, statistics);

    /// <summary>This rank's biased variances, then those of all.</summary>
    public Span<double> Second => _mine.AsSpan(statistics, statistics);

    /// <summary>
    /// Replaces means and variances by those of all ranks' values: the squared deviations of two groups add up, plus the squared distance of their means times
    /// n1*n2/(n1+n2) (Chan, Golub and LeVeque, 1983).
    /// </summary>
    public void JoinMoments()
    {
        Exchange();
        Span<double> mean = First, variance = Second;
        mean.Clear();
        variance.Clear(); // squared deviations until the end
        double n = 0;
        for (int r = 0; r < Members; r++)
        {
            ReadOnlySpan<double> of = Of(r);
            double more = of[^1], sum = n + more;
            for (int k = 0; k < statistics; k++)
            {
                double delta = of[k] - mean[k];
                mean[k] += delta * more / sum;
                variance[k] += of[statistics + k] * more + delta * delta * n * more / sum;
            }

            n = sum;
        }

        for (int k = 0; k < statistics; k++)
        {
            variance[k] /= n;
        }

        Count = n;
    }

    /// <summary>Replaces two sums per statistic by those of all ranks.</summary>
    public void JoinSums()
    {
        Exchange();
        _mine.AsSpan().Clear();
        for (int r = 0; r < Members; r++)
        {
            ReadOnlySpan<double> of = Of(r);
            for (int k = 0; k < of.Length; k++)
            {
                _mine[k] += of[k];
            }
        }

        Count = _mine[^1];
    }

    private void Exchange()
    {
        _mine[^1] = count;
        ranks.AllGather(_mine, _all, Members);
    }

    private ReadOnlySpan<double> Of(int rank) => _all.AsSpan(rank * _mine.Length, _mine.Length);
}
