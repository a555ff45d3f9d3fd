using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Sessions;

/// <summary>Where dynamic loss scaling stands (<see cref="UpdateLossScale"/>).</summary>
/// <param name="Scale">What the loss's gradient is multiplied by in the next step.</param>
/// <param name="GoodSteps">Steps in a row without an overflow.</param>
/// <param name="SkippedSteps">Steps of the whole run whose gradients overflowed, so that they updated nothing.</param>
public readonly record struct LossScale(float Scale, int GoodSteps, long SkippedSteps);
