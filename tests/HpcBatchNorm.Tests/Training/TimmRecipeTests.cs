using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

/// <summary>The recipes in timm's present style against A3 of 2110.00476 (its Table 2), and their steps by hand.</summary>
public sealed class TimmRecipeTests
{
    [Theory]
    [InlineData("resnet-a3", "resnet-50")]
    [InlineData("bn-inception-a3", "bn-inception")]
    public void Recipe_IsA3(string recipe, string model)
    {
        RunConfig config = new TrainingConfigBuilder().AddRecipe(recipe).Config;
        TrainingOptions options = config.Optimizer;

        Assert.Equal((model, recipe.StartsWith("bn", StringComparison.Ordinal) ? recipe : config.Name), (config.Model, config.Name));
        Assert.Equal((160, 0.95, 100, 2048), (config.ImageSize, config.CropFraction, config.Epochs, config.ImagesPerStep));
        Assert.Equal((OptimizerAlgorithm.Lamb, 0.008f, 0.02f, 5), (options.Algorithm, config.LearningRate, options.WeightDecay, config.WarmupEpochs));
        Assert.Equal((true, 0.1f, 1f, 0f), (options.BinaryLoss, options.Mixup, options.Cutmix, options.LabelSmoothing));
        Assert.Equal((AutomaticPolicy.Rand, 6, 0.5, 2), (config.Augmentation.Policy, config.Augmentation.RandMagnitude, config.Augmentation.RandDeviation, config.Augmentation.RandOperations));
        Assert.Equal((0.9, 0.999, 1e-6f), (options.Beta1, options.Beta2, options.OptimizerEpsilonOrUsual));
    }

    /// <summary>1,281,167 images make 625 steps of 2048; 5 epochs of warm-up are 3125 steps, 59,375 are left.</summary>
    [Theory]
    [InlineData(0, 0)]
    [InlineData(1, 2.56e-6)] // 0.008 / 3125
    [InlineData(1250, 0.0032)]
    [InlineData(3125, 0.008)]
    [InlineData(15_000, 0.00723606798)] // a fifth of the way down: 0.004 * (1 + cos(pi / 5))
    [InlineData(50_625, 0.00076393202)] // four fifths
    [InlineData(62_499, 0)]
    public void Rate_ByHand(long step, double expected)
    {
        RunConfig config = new TrainingConfigBuilder().AddRecipe("resnet-a3").Config;
        long stepsPerEpoch = 1_281_167 / config.ImagesPerStep;
        Assert.Equal(625, stepsPerEpoch);
        Assert.Equal(expected, new LearningRateSchedule(config, stepsPerEpoch, 62_500).At(step), 1e-9);
    }

    [Fact]
    public void Plan_HasTheRecipesUpdateAndLoss()
    {
        RunConfig config = new TrainingConfigBuilder().AddRecipe("bn-inception-a3").Set("batch-size", "2").Set("image-size", "64").Config;
        Network network = NetworkCatalog.Create(config.Model, config.Network with { Classes = 10 });
        Plan plan = TrainingSession.PlanFor(new BackendTraits(8, BatchNormTakesSlices: true, BatchNormVariants: true, LossScaling: true), network, config.Optimizer);

        Assert.Equal([(0.02f, true), (0f, false)], plan.Operations.OfType<AdamUpdate>().Select(o => (o.WeightDecay, o.TrustRatio)));
        Assert.Equal(1, Assert.Single(plan.Operations.OfType<ClipGradients>()).MaximumNorm);
        SoftmaxCrossEntropy loss = Assert.Single(plan.Operations.OfType<SoftmaxCrossEntropy>());
        Assert.True(loss.Binary);
        Assert.NotNull(loss.SecondLabels);
    }
}
