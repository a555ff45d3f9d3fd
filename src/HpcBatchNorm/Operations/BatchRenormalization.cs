namespace HpcBatchNorm.Operations;

/// <summary>
/// Batch renormalization (Ioffe 2017, 1702.03275, section 3): xhat = (x - mean) / sigma * r + d, with sigma = sqrt(variance + epsilon) of the batch,
/// r = clip(sigma / runningSigma, 1 / R, R) and d = clip((mean - runningMean) / runningSigma, -D, D). r and d are constants to the backward pass. The limits
/// R and D rise in a straight line from 1 and 0, which is batch normalization, at step <see cref="Start"/> to their maxima.
/// </summary>
/// <param name="MaximumR">Largest R, at least 1.</param>
/// <param name="MaximumD">Largest D, at least 0.</param>
/// <param name="Start">Until this step it is batch normalization.</param>
/// <param name="EndR">Step from which R is <paramref name="MaximumR"/>.</param>
/// <param name="EndD">Step from which D is <paramref name="MaximumD"/>.</param>
/// <remarks>
/// The defaults are the paper's. It keeps a running deviation; here runningSigma comes from the running variance that inference uses, which is unbiased.
/// </remarks>
public sealed record BatchRenormalization(float MaximumR = 3, float MaximumD = 5, long Start = 5000, long EndR = 40_000, long EndD = 25_000)
{
    /// <summary>R and D of a step.</summary>
    internal (double R, double D) LimitsAt(long step)
    {
        return (1 + (MaximumR - 1) * Ramp(EndR), MaximumD * Ramp(EndD));

        double Ramp(long end) => step < Start ? 0 : step >= end ? 1 : (double)(step - Start) / (end - Start);
    }

    /// <summary>Throws <see cref="ArgumentException"/> when a limit is out of its range.</summary>
    internal void Validate(string name)
    {
        if (!(MaximumR >= 1) || !(MaximumD >= 0) || Start < 0)
        {
            throw new ArgumentException(FormattableString.Invariant(
                $"Batch renormalization '{name}': r is at most {MaximumR}, d at most {MaximumD}, from step {Start}; expected at least 1, 0 and 0."));
        }
    }

    /// <summary>r and d of one statistic.</summary>
    internal static (double R, double D) Correction(double mean, double variance, double runningMean, double runningVariance, double epsilon, (double R, double D) limits)
    {
        double sigma = Math.Sqrt(runningVariance + epsilon);
        return sigma != 0 // a NaN stays one
            ? (Math.Clamp(Math.Sqrt(variance + epsilon) / sigma, 1 / limits.R, limits.R), Math.Clamp((mean - runningMean) / sigma, -limits.D, limits.D))
            : (1, 0);
    }
}
