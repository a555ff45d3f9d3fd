using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Tests.Training;

public sealed class EarlyStoppingTests
{
    // The evaluation after which a run of these values stops with a patience of 2, counted from 1; 0: never. Accuracies and losses are the same numbers, so that the
    // measure alone decides.
    [Theory]
    [InlineData(EarlyStoppingMeasure.Top1, 0, new[] { 0.5, 0.4, 0.6, 0.7, 0.8 }, 0)]
    [InlineData(EarlyStoppingMeasure.Top1, 0, new[] { 0.5, 0.6, 0.5, 0.6, 0.8 }, 4)]
    [InlineData(EarlyStoppingMeasure.Top1, 0.15, new[] { 0.5, 0.6, 0.7, 0.7, 0.8 }, 5)]
    [InlineData(EarlyStoppingMeasure.Loss, 0, new[] { 0.5, 0.4, 0.6, 0.3, 0.2 }, 0)]
    [InlineData(EarlyStoppingMeasure.Loss, 0, new[] { 0.5, 0.6, 0.7, 0.2, 0.1 }, 3)]
    [InlineData(EarlyStoppingMeasure.Loss, 0, new[] { double.NaN, 0.5, double.NaN, 0.5, 0.1 }, 4)]
    public void Evaluated_WithoutAnImprovement_StopsAfterItsPatience(EarlyStoppingMeasure measure, double smallest, double[] values, int expected)
    {
        var stopping = new EarlyStopping(2, measure, smallest);
        var control = new TrainingControl([]);
        stopping.Attached(control);
        int stopped = 0;
        for (int i = 0; i < values.Length && stopped == 0; i++)
        {
            stopping.Evaluated(new EvaluationReport(i, i, 0, new EvaluationResult(10, values[i], 1, values[i], 1), false));
            stopped = control.StopReason is null ? 0 : i + 1;
        }

        Assert.Equal(expected, stopped);

        // Resumed after any of them, it stops at the same one.
        for (int before = 0; before < expected; before++)
        {
            control = new TrainingControl([.. values[..before].Select((v, i) => new EvaluationPoint(i, i, 0, v, v, 1, 10))]);
            stopping.Attached(control);
            Assert.Null(control.StopReason);
            for (int i = before; i < expected; i++)
            {
                stopping.Evaluated(new EvaluationReport(i, i, 0, new EvaluationResult(10, values[i], 1, values[i], 1), false));
                Assert.Equal(i + 1 == expected, control.StopReason is not null);
            }
        }
    }
}
