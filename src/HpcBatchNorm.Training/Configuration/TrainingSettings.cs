using HpcBatchNorm.Models;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using static HpcBatchNorm.Training.Setting;
using static HpcBatchNorm.Training.SettingGroup;

namespace HpcBatchNorm.Training;

/// <summary>Every setting of a run: the one list that recipes, configuration files, flags and their help are made of.</summary>
internal static class TrainingSettings
{
    private const string Auto = Setting.Automatic;
    private const double Unbounded = double.PositiveInfinity;

    /// <summary>A configuration in which nothing is set.</summary>
    public static RunConfig Defaults { get; } = new();

    /// <summary>All settings, in the order they are printed.</summary>
    public static IReadOnlyList<Setting> All { get; } =
    [
        Text("model", Network, "Network: bn-inception, inception, inception-tiny, mnist-mlp, ... (hpcbn inspect lists them), or a file FILE.json that describes one",
            c => c.Model, (c, v) => c with { Model = NetworkSource.IsFile(v) ? Path.GetFullPath(v) : v }) with { Aliases = ["-a", "--arch"] },
        Choice("width", Network, "Channels of modules 4c and 4d: 608 adds up the branches of Figure 5, 576 is the size it prints", ["576", "608"],
            c => c.Network.Width == 608 ? "608" : "576", (c, v) => c with { Network = c.Network with { Width = v == "608" ? 608 : 576 } }),
        Switch("separable-first-convolution", Network, "First convolution separable with depth multiplier 8, as in Figure 5's footnote",
            c => c.Network.SeparableFirstConvolution, (c, v) => c with { Network = c.Network with { SeparableFirstConvolution = v } }),
        Choice("activation", Network, "Nonlinearity; auto: the network's own", [Auto, .. ActivationKinds.Names],
            c => c.Network.Activation?.Name() ?? Auto,
            (c, v) => c with { Network = c.Network with { Activation = v == Auto ? null : Enum.Parse<ActivationKind>(v, ignoreCase: true) } }),
        OptionalSwitch("batch-norm", Network, "Batch normalization before every nonlinearity; auto: the network's own choice",
            c => c.Network.BatchNorm, (c, v) => c with { Network = c.Network with { BatchNorm = v } }),
        OptionalSwitch("lrn", Network, "Local response normalization (change 5 removes it); auto: where there is no batch normalization",
            c => c.Network.Lrn, (c, v) => c with { Network = c.Network with { Lrn = v } }),
        OptionalReal("dropout", Network, "Probability of dropout before the classifier (change 2 removes it); auto: the network's own", 0, 0.99,
            c => c.Network.Dropout, (c, v) => c with { Network = c.Network with { Dropout = v } }),
        OptionalReal("epsilon", Network, "Epsilon of batch normalization; auto: the network's own (0.00001; 0.001 for inception-v3)", 0, 1,
            c => c.Network.Epsilon, (c, v) => c with { Network = c.Network with { Epsilon = v } }) with { Aliases = ["--bn-eps"], AutomaticWas = "1E-05" },
        Real("averaging-factor", Network, "Weight of the new batch in running statistics (PyTorch's BN momentum; 1 minus Keras's and Caffe's)", 0, 1,
            c => c.Network.AveragingFactor, (c, v) => c with { Network = c.Network with { AveragingFactor = v } }),
        Real64("initial-weight-scale", Network, "Factor on the deviation of the initial weights", 0, Unbounded,
            c => c.Network.InitialWeightScale, (c, v) => c with { Network = c.Network with { InitialWeightScale = v } }),
        Switch("per-activation-norm", Network, "Per-activation instead of per-map normalization in the last module",
            c => c.Network.PerActivationLast, (c, v) => c with { Network = c.Network with { PerActivationLast = v } }),
        Switch("auxiliary-heads", Network, "Train GoogLeNet's two auxiliary classifiers too",
            c => c.Network.AuxiliaryHeads, (c, v) => c with { Network = c.Network with { AuxiliaryHeads = v } }),
        Switch("average-includes-padding", Network, "Average pooling inside modules counts padding as zeros",
            c => c.Network.AverageIncludesPadding, (c, v) => c with { Network = c.Network with { AverageIncludesPadding = v } }),
        Switch("unpadded-pools", Network, "Max pooling of the modules that halve the image has no padding and rounds up (Caffe, and the published weights of bn-inception); for image sizes that are multiples of 32",
            c => c.Network.UnpaddedPools, (c, v) => c with { Network = c.Network with { UnpaddedPools = v } }) with { HashedWhereChanged = true },
        Whole("hidden-layers", Network, "mnist-mlp: hidden layers", 1, c => c.Network.HiddenLayers, (c, v) => c with { Network = c.Network with { HiddenLayers = v } })
            with { HashedWhereChanged = true },
        Whole("hidden-units", Network, "mnist-mlp: units of each hidden layer", 1, c => c.Network.HiddenUnits, (c, v) => c with { Network = c.Network with { HiddenUnits = v } })
            with { HashedWhereChanged = true },
        Real64("initial-deviation", Network, "mnist-mlp: deviation of the initial weights; 0 for He's", 0, Unbounded,
            c => c.Network.InitialDeviation, (c, v) => c with { Network = c.Network with { InitialDeviation = v } }) with { HashedWhereChanged = true },
        Text("initial-checkpoint", Network, "Checkpoint whose weights and statistics a new run begins with; step, schedule and momentum begin anew",
            c => c.InitialCheckpoint, (c, v) => c with { InitialCheckpoint = v.Length == 0 ? "" : Path.GetFullPath(v) }) with { Aliases = ["--pretrained"] },
        Switch("reset-classifier", Network, "Leave out the classifier of initial-checkpoint, for a data set with other classes",
            c => c.ResetClassifier, (c, v) => c with { ResetClassifier = v }),

        Real("learning-rate", Optimizer, "Learning rate that the schedule starts from (change 1 raises it)", 0, Unbounded,
            c => c.LearningRate, (c, v) => c with { LearningRate = v }) with { Aliases = ["--lr"] },
        Whole("learning-rate-batch", Optimizer, "Images per step (of all ranks) that learning-rate is meant for: it is scaled in proportion to those there are (linear scaling; warmup-epochs goes with it); 0: taken as it stands", 0,
            c => c.LearningRateBatch, (c, v) => c with { LearningRateBatch = v }) with { HashedWhereChanged = true },
        Choice("schedule", Optimizer, "How the learning rate falls: by decay-rate and decay-epochs (exponential), exponentially to final-learning-rate-fraction at the end (span), "
            + "by gamma at milestones (step), to minimum-learning-rate at the end (cosine, linear), not at all (constant); "
            + "auto: exponential for runs of schedule-epochs or more, span for shorter ones", c => c.Schedule, (c, v) => c with { Schedule = v })
            with { Aliases = ["--sched", "--lr-schedule", "--lr-scheduler"] },
        Real64("decay-rate", Optimizer, "Schedule exponential: factor of one decay", 1e-6, 1, c => c.DecayRate, (c, v) => c with { DecayRate = v }),
        Real64("decay-epochs", Optimizer, "Schedule exponential: epochs between decays (change 4 makes it six times smaller)", 1e-6, Unbounded,
            c => c.DecayEpochs, (c, v) => c with { DecayEpochs = v }),
        Real64("schedule-epochs", Optimizer, "Length of the run that the decay constants were made for", 0, Unbounded,
            c => c.ScheduleEpochs, (c, v) => c with { ScheduleEpochs = v }),
        Real64("final-learning-rate-fraction", Optimizer, "Schedule span: share of the first learning rate it ends at", 1e-9, 1,
            c => c.FinalLearningRateFraction, (c, v) => c with { FinalLearningRateFraction = v }),
        Reals("milestones", Optimizer, "Schedule step: epochs after which the learning rate is multiplied by gamma, e.g. 30,60,80",
            c => c.Milestones, (c, v) => c with { Milestones = v }) with { Aliases = ["--decay-milestones", "--lr-milestones"] },
        Real64("gamma", Optimizer, "Schedule step: factor at every milestone", 1e-6, 1, c => c.Gamma, (c, v) => c with { Gamma = v }) with { Aliases = ["--lr-gamma"] },
        Real64("minimum-learning-rate", Optimizer, "Schedule cosine or linear: learning rate at the end", 0, Unbounded,
            c => c.MinimumLearningRate, (c, v) => c with { MinimumLearningRate = v }) with { Aliases = ["--min-lr"] },
        Real64("cycle-epochs", Optimizer, "Schedule cosine: epochs of the first cycle, after which the rate jumps up and falls again (warm restarts); 0 for one cycle", 0, Unbounded,
            c => c.CycleEpochs, (c, v) => c with { CycleEpochs = v }) with { HashedWhereChanged = true },
        Real64("cycle-multiplier", Optimizer, "Schedule cosine with cycle-epochs: how many times as long each cycle is as the one before it", 1, 1000,
            c => c.CycleMultiplier, (c, v) => c with { CycleMultiplier = v }) with { Aliases = ["--lr-cycle-mul"], HashedWhereChanged = true },
        Real64("cycle-decay", Optimizer, "Schedule cosine with cycle-epochs: how many times as high each cycle begins as the one before it", 0, 1,
            c => c.CycleDecay, (c, v) => c with { CycleDecay = v }) with { Aliases = ["--lr-cycle-decay"], HashedWhereChanged = true },
        Real64("warmup-epochs", Optimizer, "Epochs in which the learning rate first rises in a straight line; any schedule", 0, Unbounded,
            c => c.WarmupEpochs, (c, v) => c with { WarmupEpochs = v }) with { Aliases = ["--lr-warmup-epochs"] },
        Real64("warmup-learning-rate", Optimizer, "Learning rate that the warm-up rises from", 0, Unbounded,
            c => c.WarmupLearningRate, (c, v) => c with { WarmupLearningRate = v }) with { Aliases = ["--warmup-lr"] },
        Choice("warmup-form", Optimizer, "Step n of w of the warm-up, from 0: reached is (n + 1) / w of the way up, so that the last has the full rate; pytorch is n / w (LinearLR), "
            + "so that the first has warmup-learning-rate", c => c.WarmupForm, (c, v) => c with { WarmupForm = v }) with { HashedWhereChanged = true },
        Choice("optimizer", Optimizer, "What updates the parameters: sgd with momentum (the paper's), adamw, or lamb for large batches", c => c.Optimizer.Algorithm,
            (c, v) => c with { Optimizer = c.Optimizer with { Algorithm = v } }) with { Aliases = ["--opt"], HashedWhereChanged = true },
        Real64("beta1", Optimizer, "Optimizer adamw or lamb: decay of the average of gradients", 0, 0.999999,
            c => c.Optimizer.Beta1, (c, v) => c with { Optimizer = c.Optimizer with { Beta1 = v } }) with { HashedWhereChanged = true },
        Real64("beta2", Optimizer, "Optimizer adamw or lamb: decay of the average of squared gradients", 0, 0.99999999,
            c => c.Optimizer.Beta2, (c, v) => c with { Optimizer = c.Optimizer with { Beta2 = v } }) with { HashedWhereChanged = true },
        OptionalReal("optimizer-epsilon", Optimizer, "Optimizer adamw or lamb: added to the root of the second moment; auto: 1e-8 for adamw, 1e-6 for lamb", 1e-20, 1,
            c => c.Optimizer.OptimizerEpsilon, (c, v) => c with { Optimizer = c.Optimizer with { OptimizerEpsilon = v } }) with { Aliases = ["--opt-eps"], HashedWhereChanged = true },
        Real("momentum", Optimizer, "Optimizer sgd: momentum's coefficient", 0, 0.9999, c => c.Optimizer.Mu, (c, v) => c with { Optimizer = c.Optimizer with { Mu = v } }),
        Switch("nesterov", Optimizer, "Nesterov's momentum", c => c.Optimizer.Nesterov, (c, v) => c with { Optimizer = c.Optimizer with { Nesterov = v } }),
        Choice("momentum-form", Optimizer, "sutskever: v = momentum v - rate g, w += v (the paper's reference); pytorch: v = momentum v + g, w -= rate v; "
            + "they differ once the rate changes", c => c.Optimizer.MomentumForm, (c, v) => c with { Optimizer = c.Optimizer with { MomentumForm = v } })
            with { HashedWhereChanged = true },
        Real("weight-decay", Optimizer, "L2 weight (change 3 divides it by five); with adamw and lamb decoupled from the gradient", 0, Unbounded, c => c.Optimizer.WeightDecay, (c, v) => c with { Optimizer = c.Optimizer with { WeightDecay = v } })
            with { Aliases = ["--wd"] },
        Switch("decay-scale-and-shift", Optimizer, "L2 on batch normalization's scale and shift too", c => c.Optimizer.DecayScaleAndShift, (c, v) => c with { Optimizer = c.Optimizer with { DecayScaleAndShift = v } }),
        Patterns("no-decay", Optimizer, "Layers or parameters that weight decay leaves alone: names, separated by commas, * for any characters",
            c => c.Optimizer.WithoutDecay, (c, v) => c with { Optimizer = c.Optimizer with { WithoutDecay = v } }) with { HashedWhereChanged = true },
        RateFactors("rate-factors", Optimizer, "Factors on the learning rate of layers or parameters, e.g. *=0.1,fc=1: names with * for any characters; the last that fits counts",
            c => c.Optimizer.RateFactors, (c, v) => c with { Optimizer = c.Optimizer with { RateFactors = v } }) with { HashedWhereChanged = true },
        Patterns("freeze", Optimizer, "Layers or parameters that do not learn: names, separated by commas, * for any characters (freeze-bn is for running statistics)",
            c => c.Optimizer.Frozen, (c, v) => c with { Optimizer = c.Optimizer with { Frozen = v } }) with { HashedWhereChanged = true },
        Real("label-smoothing", Optimizer, "Share of the target spread over all classes", 0, 0.99, c => c.Optimizer.LabelSmoothing, (c, v) => c with { Optimizer = c.Optimizer with { LabelSmoothing = v } })
            with { Aliases = ["--smoothing"] },
        Choice("loss", Optimizer, "softmax: cross-entropy of softmax; bce: binary cross-entropy of every class, its mean over images and classes", ["softmax", "bce"],
            c => c.Optimizer.BinaryLoss ? "bce" : "softmax", (c, v) => c with { Optimizer = c.Optimizer with { BinaryLoss = v == "bce" } }) with { HashedWhereChanged = true },
        Real("bce-target-threshold", Optimizer, "Loss bce: targets above this become 1, the others 0; 0 leaves them as they are", 0, 1,
            c => c.Optimizer.BinaryTargetThreshold, (c, v) => c with { Optimizer = c.Optimizer with { BinaryTargetThreshold = v } })
            with { Aliases = ["--bce-target-thresh"], HashedWhereChanged = true },
        Real("clip-norm", Optimizer, "Largest norm of all gradients together; 0 for no clipping", 0, Unbounded, c => c.Optimizer.ClipNorm, (c, v) => c with { Optimizer = c.Optimizer with { ClipNorm = v } })
            with { Aliases = ["--clip-grad"] },
        Switch("freeze-bn", Optimizer, "Normalise with the running statistics, held constant (Frozen BN): for fine-tuning and last epochs",
            c => c.Optimizer.FrozenStatistics, (c, v) => c with { Optimizer = c.Optimizer with { FrozenStatistics = v } }),
        Real64("freeze-bn-after", Optimizer, "Epochs after which freeze-bn begins; 0 for never", 0, Unbounded, c => c.FreezeBatchNormAfter, (c, v) => c with { FreezeBatchNormAfter = v }),
        Switch("freeze-scale-and-shift", Optimizer, "Where batch normalization is frozen, its scale and shift are too",
            c => c.Optimizer.FrozenScaleAndShift, (c, v) => c with { Optimizer = c.Optimizer with { FrozenScaleAndShift = v } }),
        Whole("ghost-batch", Optimizer, "Images of each group with batch statistics of its own (ghost or virtual batches); 0: all of batch-size together", 0,
            c => c.Optimizer.GhostBatch, (c, v) => c with { Optimizer = c.Optimizer with { GhostBatch = v } }) with { Aliases = ["--ghost-batch-size", "--virtual-batch-size"] },
        Switch("batch-renorm", Optimizer, "Batch renormalization: corrects batch statistics towards the running ones; for small batches",
            c => c.Optimizer.BatchRenormalize, (c, v) => c with { Optimizer = c.Optimizer with { BatchRenormalize = v } }) with { Aliases = ["--renorm"] },
        Renorm("renorm-r-max", "Batch renormalization: largest correction r of the deviation", l => l.MaximumR, (l, v) => l with { MaximumR = v }, 1) with { Aliases = ["--r-max"] },
        Renorm("renorm-d-max", "Batch renormalization: largest correction d of the mean, in deviations", l => l.MaximumD, (l, v) => l with { MaximumD = v }, 0) with { Aliases = ["--d-max"] },
        RenormStep("renorm-start", "Batch renormalization: steps of plain batch normalization first", l => l.Start, (l, v) => l with { Start = v }),
        RenormStep("renorm-r-steps", "Batch renormalization: step at which the limit of r reaches renorm-r-max", l => l.EndR, (l, v) => l with { EndR = v }),
        RenormStep("renorm-d-steps", "Batch renormalization: step at which the limit of d reaches renorm-d-max", l => l.EndD, (l, v) => l with { EndD = v }),
        Switch("sync-bn", Optimizer, "Batch statistics over the batches of all ranks together instead of each rank's own",
            c => c.Optimizer.SyncBatchNorm, (c, v) => c with { Optimizer = c.Optimizer with { SyncBatchNorm = v } }) with { HashedWhereChanged = true },
        Whole("sync-bn-ranks", Optimizer, "sync-bn: ranks in a row that join their batch statistics, those of a machine, say; 0: all", 0,
            c => c.Optimizer.SyncBatchNormRanks, (c, v) => c with { Optimizer = c.Optimizer with { SyncBatchNormRanks = v } }) with { HashedWhereChanged = true },
        Choice("gradient-wire", Optimizer, "What gradients travel as between ranks: fp32, or bf16, which halves what goes over the network and rounds them twice", ["fp32", "bf16"],
            c => c.Optimizer.NarrowGradients ? "bf16" : "fp32", (c, v) => c with { Optimizer = c.Optimizer with { NarrowGradients = v == "bf16" } }) with { HashedWhereChanged = true },
        Switch("constant-statistics", Optimizer, "Leave the dependence of batch statistics on the layer's input out of the gradient (the mistake that section 2 warns of); for experiments",
            c => c.Optimizer.ConstantStatistics, (c, v) => c with { Optimizer = c.Optimizer with { ConstantStatistics = v } }) with { HashedWhereChanged = true },
        Real("average-decay", Optimizer, "Decay of the moving average of the weights that is evaluated; 0 for none", 0, 0.999999,
            c => c.Optimizer.AverageDecay, (c, v) => c with { Optimizer = c.Optimizer with { AverageDecay = v } }) with { Aliases = ["--model-ema-decay"] },

        Text("data", Images, "Data set: folder with the official ImageNet archives, class folders, a tar of them, MNIST's IDX files; empty: the generated sample",
            c => c.Data, (c, v) => c with { Data = v }) with { Aliases = ["--data-dir"], DecidesNumbers = false },
        Whole("image-size", Images, "Height and width of the network's input in pixels", 1, c => c.ImageSize, (c, v) => c with { Optimizer = c.Optimizer with { Height = v, Width = v } })
            with { Aliases = ["--img-size"] },
        Whole("batch-size", Images, "Images per forward and backward pass (of each rank), which batch normalization sees together", 1,
            c => c.BatchSize, (c, v) => c with { Optimizer = c.Optimizer with { Batch = v } }) with { Aliases = ["-b"] },
        Whole("accumulate", Images, "Passes of batch-size images whose mean gradient makes one step", 1,
            c => c.Optimizer.Accumulate, (c, v) => c with { Optimizer = c.Optimizer with { Accumulate = v } })
            with { Aliases = ["--grad-accum-steps", "--gradient-accumulation-steps", "--iter-size"] },
        Whole("ranks", Images, "Processes that train together, each on batch-size images a pass; mpirun or srun decides it, and a file that says otherwise is refused", 1,
            c => c.Optimizer.Ranks, (c, v) => c with { Optimizer = c.Optimizer with { Ranks = v } }) with { HashedWhereChanged = true },
        Choice("shuffle", Images, "Order of training images: a new one each epoch, over the whole set (global) or within shards only (shard, change 6); one random order for the whole run (fixed); or by name (none)",
            c => c.Shuffle, (c, v) => c with { Shuffle = v }),
        Whole("shard-size", Images, "Images per shard of shuffle shard, where the data set is not packed into shards", 1,
            c => c.ShardSize, (c, v) => c with { ShardSize = v }),
        Real64("min-area", Images, "Smallest share of the image's area that a training crop takes", 0.001, 1,
            c => c.Augmentation.MinArea, (c, v) => c with { Augmentation = c.Augmentation with { MinArea = v } }),
        Real64("min-aspect", Images, "Smallest ratio of width to height of a training crop", 0.01, 100,
            c => c.Augmentation.MinAspect, (c, v) => c with { Augmentation = c.Augmentation with { MinAspect = v } }) with { HashedWhereChanged = true },
        Real64("max-aspect", Images, "Largest ratio of width to height of a training crop", 0.01, 100,
            c => c.Augmentation.MaxAspect, (c, v) => c with { Augmentation = c.Augmentation with { MaxAspect = v } }) with { HashedWhereChanged = true },
        Real64("photometric", Images, "Strength of photometric distortion, 0 to 1 (change 7 lowers it)", 0, 1,
            c => c.Augmentation.PhotometricStrength, (c, v) => c with { Augmentation = c.Augmentation with { PhotometricStrength = v } }),
        Switch("lighting-noise", Images, "AlexNet's lighting noise after photometric distortion, in proportion to it",
            c => c.Augmentation.LightingNoise, (c, v) => c with { Augmentation = c.Augmentation with { LightingNoise = v } }),
        Switch("mirror", Images, "Mirror half of the training crops", c => c.Augmentation.Mirror, (c, v) => c with { Augmentation = c.Augmentation with { Mirror = v } }),
        Choice("auto-augment", Images, "Policy of random operations on training images: trivial is TrivialAugment (torchvision's ta_wide), rand is RandAugment (timm's rand-...-inc1)",
            c => c.Augmentation.Policy, (c, v) => c with { Augmentation = c.Augmentation with { Policy = v } }) with { HashedWhereChanged = true },
        Whole("rand-operations", Images, "auto-augment rand: operations of each image, each of which is done with probability 1/2", 1, 10,
            c => c.Augmentation.RandOperations, (c, v) => c with { Augmentation = c.Augmentation with { RandOperations = (int)v } }) with { HashedWhereChanged = true },
        Real64("rand-magnitude", Images, "auto-augment rand: magnitude of the operations", 0, 10,
            c => c.Augmentation.RandMagnitude, (c, v) => c with { Augmentation = c.Augmentation with { RandMagnitude = v } }) with { HashedWhereChanged = true },
        Real64("rand-deviation", Images, "auto-augment rand: standard deviation of the magnitude", 0, 10,
            c => c.Augmentation.RandDeviation, (c, v) => c with { Augmentation = c.Augmentation with { RandDeviation = v } }) with { HashedWhereChanged = true },
        Real64("random-erasing", Images, "Share of the training images of which a rectangle becomes grey", 0, 1,
            c => c.Augmentation.ErasingProbability, (c, v) => c with { Augmentation = c.Augmentation with { ErasingProbability = v } }) with { Aliases = ["--reprob"], HashedWhereChanged = true },
        Real("mixup", Images, "Mixup: alpha of the Beta distribution of the first image's share; 0 for none", 0, 100,
            c => c.Optimizer.Mixup, (c, v) => c with { Optimizer = c.Optimizer with { Mixup = v } }) with { Aliases = ["--mixup-alpha"], HashedWhereChanged = true },
        Real("cutmix", Images, "Cutmix: alpha of the Beta distribution of the part of an image that stays; 0 for none", 0, 100,
            c => c.Optimizer.Cutmix, (c, v) => c with { Optimizer = c.Optimizer with { Cutmix = v } }) with { Aliases = ["--cutmix-alpha"], HashedWhereChanged = true },
        Real("mix-probability", Images, "mixup, cutmix: share of the batches that are mixed", 0, 1,
            c => c.Optimizer.MixProbability, (c, v) => c with { Optimizer = c.Optimizer with { MixProbability = v } }) with { Aliases = ["--mixup-prob"], HashedWhereChanged = true },
        Real("cutmix-share", Images, "mixup and cutmix both: share of the mixed batches that get cutmix", 0, 1,
            c => c.Optimizer.CutmixShare, (c, v) => c with { Optimizer = c.Optimizer with { CutmixShare = v } }) with { Aliases = ["--mixup-switch-prob"], HashedWhereChanged = true },
        Choice("interpolation", Images, "Filter that images are resized with, antialiased: as Pillow's BILINEAR or BICUBIC", c => c.Interpolation, (c, v) => c with { Interpolation = v })
            with { HashedWhereChanged = true },
        Switch("binarize", Images, "Make pixels black or white, at 128 (section 4.1's binary images)", c => c.Binarize, (c, v) => c with { Binarize = v }),
        Channels("pixel-mean", Images, "Mean of the channels' pixel values (0 to 255), which is subtracted: one number or three, separated by commas; empty: 128", positive: false,
            c => c.Optimizer.PixelMean, (c, v) => c with { Optimizer = c.Optimizer with { PixelMean = v } }) with { HashedWhereChanged = true },
        Channels("pixel-deviation", Images, "Deviation of the channels' pixel values, by which they are divided: one number or three, separated by commas; empty: 128", positive: true,
            c => c.Optimizer.PixelDeviation, (c, v) => c with { Optimizer = c.Optimizer with { PixelDeviation = v } }) with { HashedWhereChanged = true },
        Real64("crop-fraction", Images, "Evaluation: image size divided by the short side before the central crop; 1 for images of about image-size", 0.01, 1,
            c => c.CropFraction, (c, v) => c with { CropFraction = v }) with { Aliases = ["--crop-pct"] },
        Choice("on-bad-image", Images, "What an unreadable image does", c => c.OnBadImage, (c, v) => c with { OnBadImage = v }) with { DecidesNumbers = false },
        Whole64("seed", Images, "Root of every random number", long.MinValue, c => c.Seed, (c, v) => c with { Optimizer = c.Optimizer with { Seed = unchecked((ulong)v) } }),

        Choice("backend", Machine, "Where it runs", ["auto", "onednn", "cudnn", "reference"], c => c.Backend, (c, v) => c with { Backend = v }),
        Choice("precision", Machine, "Element type of activations, their gradients and the weights that are multiplied; sums, statistics and the weights that are kept stay in fp32",
            c => c.Optimizer.Precision, (c, v) => c with { Optimizer = c.Optimizer with { Precision = v } }),
        Real("loss-scale", Machine, "precision fp16: what the loss's gradient is multiplied by at the start; halves when a gradient overflows", 1, UpdateLossScale.MostScale,
            c => c.Optimizer.LossScale, (c, v) => c with { Optimizer = c.Optimizer with { LossScale = v } }) with { Aliases = ["--initial-loss-scale"] },
        Whole("loss-scale-growth", Machine, "precision fp16: steps in a row without an overflow after which the loss scale doubles; 0 for never", 0,
            c => c.Optimizer.LossScaleGrowth, (c, v) => c with { Optimizer = c.Optimizer with { LossScaleGrowth = v } }) with { Aliases = ["--loss-scale-window"] },
        Whole("threads", Machine, "Compute threads (of each rank); 0 for one per core, shared among the ranks of a machine", 0, c => c.BackendOptions.Threads, (c, v) => c with { BackendOptions = c.BackendOptions with { Threads = v } }),
        Whole("workers", Machine, "Threads that decode images; 0: half of the processors, at least 2 and at most 16", 0, c => c.Workers, (c, v) => c with { Workers = v }) with { Aliases = ["-j"] },
        Real64("loader-timeout", Machine, "Seconds without a finished image after which loading fails, saying what hangs; 0 for never", 0, 1e6,
            c => c.LoaderTimeout, (c, v) => c with { LoaderTimeout = v }),
        Duration("rank-timeout", Machine, "Longest time that ranks wait for one another, e.g. 10m, after which the job ends and names who is missing; 0: for ever",
            c => c.RankTimeout, (c, v) => c with { RankTimeout = v }),
        Choice("conv-algorithm", Machine, "Convolution algorithms the backend may choose from",
            c => c.BackendOptions.ConvolutionAlgorithm, (c, v) => c with { BackendOptions = c.BackendOptions with { ConvolutionAlgorithm = v } }),
        Choice("bn-algorithm", Machine, "Batch normalization by our fused kernels (native) or by the library's primitive",
            c => c.BackendOptions.BatchNormAlgorithm, (c, v) => c with { BackendOptions = c.BackendOptions with { BatchNormAlgorithm = v } }),
        Switch("library-relu", Machine, "Inference on cudnn: the library adds bias and computes ReLU with its convolution, faster; it rounds the bias to precision and makes a NaN 0",
            c => c.BackendOptions.LibraryRelu, (c, v) => c with { BackendOptions = c.BackendOptions with { LibraryRelu = v } }),
        Switch("record-steps", Machine, "Let a GPU replay a session's kernels as one recording (cudnn: a CUDA graph)",
            c => c.BackendOptions.RecordSteps, (c, v) => c with { BackendOptions = c.BackendOptions with { RecordSteps = v } }),
        Choice("recompute", Machine, "What the backward pass computes again instead of keeping it: nothing, or batch normalization's outputs (bn)", ["none", "bn"],
            c => c.Optimizer.RecomputeBatchNorm ? "bn" : "none", (c, v) => c with { Optimizer = c.Optimizer with { RecomputeBatchNorm = v == "bn" } }),
        Text("no-fuse", Machine, "Fusions to leave out, separated by commas (hpcbn inspect --plan shows them)",
            c => string.Join(',', c.Optimizer.DisabledFusions), (c, v) => c with { Optimizer = c.Optimizer with { DisabledFusions = SplitFusions(v) } }),

        Text("name", Run, "What the run is called in folder names and reports; the recipe's name unless set", c => c.Name, (c, v) => c with { Name = v }),
        Real64("epochs", Run, "Length of the run in epochs", 0, Unbounded, c => c.Epochs, (c, v) => c with { Epochs = v }) with { DecidesNumbers = true },
        Whole64("steps", Run, "Length of the run in steps; 0: epochs decide", 0, c => c.Steps, (c, v) => c with { Steps = v }) with { DecidesNumbers = true },
        Real64("eval-every", Run, "Epochs between evaluations, besides the one at the end; 0 for none at all", 0, Unbounded, c => c.EvalEvery, (c, v) => c with { EvalEvery = v }),
        Whole("patience", Run, "Evaluations in a row without a better top-1 accuracy after which the run ends; 0: it goes on to its end", 0, c => c.Patience, (c, v) => c with { Patience = v })
            with { Aliases = ["--early-stopping"], DecidesNumbers = true, HashedWhereChanged = true },
        Whole64("checkpoint-every", Run, "Steps between checkpoints; 0 for one per evaluation", 0, c => c.CheckpointEvery, (c, v) => c with { CheckpointEvery = v }),
        Duration("checkpoint-time", Run, "Longest time without a checkpoint, e.g. 15m; such a checkpoint goes when the next regular one is there; 0: steps and evaluations alone decide",
            c => c.CheckpointTime, (c, v) => c with { CheckpointTime = v }),
        Duration("max-time", Run, "Time after which the run saves and ends with exit code 75, e.g. 11h45m or 11:45:00; each start counts anew; 0 for none",
            c => c.MaxTime, (c, v) => c with { MaxTime = v }),
        Whole("keep", Run, "Regular checkpoints (every checkpoint-every steps, and at evaluations) kept besides the best", 1, c => c.Keep, (c, v) => c with { Keep = v }) with { Aliases = ["--checkpoint-hist"] },
        Whole("log-every", Run, "Steps between lines of metrics and of plain progress", 1, c => c.LogEvery, (c, v) => c with { LogEvery = v })
            with { Aliases = ["--log-interval"] },
        Text("output", Run, "Folder of the run; empty: runs/<date>-<model>-<recipe>", c => c.Output, (c, v) => c with { Output = v }) with { Aliases = ["-o"], InFiles = false },
    ];

    private static readonly Dictionary<string, Setting> ByName = All
        .SelectMany(s => s.Aliases.Where(a => a.StartsWith("--", StringComparison.Ordinal)).Select(a => a[2..]).Prepend(s.Name), (s, name) => (s, name))
        .ToDictionary(pair => pair.name, pair => pair.s, StringComparer.Ordinal);

    /// <summary>The setting of a name, or of one of its long aliases without the dashes.</summary>
    /// <exception cref="UserErrorException">There is none; the message suggests the nearest.</exception>
    public static Setting Find(string name) => ByName.TryGetValue(name, out Setting? setting)
        ? setting
        : throw new UserErrorException($"unknown setting '{name}'{NearestName.Hint(name, ByName.Keys)}");

    private static Setting Renorm(
        string name, string help, Func<BatchRenormalization, float> get, Func<BatchRenormalization, float, BatchRenormalization> set, double minimum) =>
        Real(name, Optimizer, help, minimum, Unbounded, c => get(c.Optimizer.Renormalization),
            (c, v) => c with { Optimizer = c.Optimizer with { Renormalization = set(c.Optimizer.Renormalization, v) } });

    private static Setting RenormStep(string name, string help, Func<BatchRenormalization, long> get, Func<BatchRenormalization, long, BatchRenormalization> set) =>
        Whole64(name, Optimizer, help, 0, c => get(c.Optimizer.Renormalization),
            (c, v) => c with { Optimizer = c.Optimizer with { Renormalization = set(c.Optimizer.Renormalization, v) } });

    private static string[] SplitFusions(string text)
    {
        string[] names = text.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
        Fusion.Validate(names);
        return names;
    }

    /// <summary>Throws when a setting is out of its range, which one that came as text cannot be, or settings contradict each other.</summary>
    /// <exception cref="UserErrorException">Names the settings and the fix.</exception>
    public static void Validate(RunConfig config)
    {
        foreach (Setting setting in All.Where(s => s.HasRange))
        {
            setting.Set(config, setting.Get(config));
        }

        if (!float.IsFinite(config.EffectiveLearningRate))
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"learning-rate is {config.LearningRate} for {config.LearningRateBatch} images; for steps of {config.ImagesPerStep} that is more than single precision holds. Set a smaller one."));
        }

        if (config.Steps == 0 && config.Epochs == 0)
        {
            throw new UserErrorException("epochs and steps are both 0; set one of them.");
        }

        if (config.Schedule == ScheduleKind.Step && config.Milestones.Count == 0)
        {
            throw new UserErrorException("schedule: step needs milestones, the epochs after which the learning rate falls; for example 30,60,80.");
        }

        if (config.Optimizer.FrozenScaleAndShift && !config.Optimizer.FrozenStatistics && config.FreezeBatchNormAfter == 0)
        {
            throw new UserErrorException("freeze-scale-and-shift applies where batch normalization is frozen; set freeze-bn or freeze-bn-after too.");
        }

        if (config.Optimizer.GhostBatch > 0 && config.BatchSize % config.Optimizer.GhostBatch != 0)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"ghost-batch is {config.Optimizer.GhostBatch}, but a batch-size of {config.BatchSize} does not divide into such groups."));
        }

        if (config.Optimizer.SyncBatchNorm && (config.Optimizer.GhostBatch > 0 || config.Optimizer.BatchRenormalize || config.Optimizer.ConstantStatistics))
        {
            throw new UserErrorException("sync-bn joins the ranks' batch statistics, which ghost-batch splits, batch-renorm corrects and constant-statistics takes for constants: set only one of them.");
        }

        if (config.Optimizer.SyncBatchNormRanks > 0 && !config.Optimizer.SyncBatchNorm)
        {
            throw new UserErrorException("sync-bn-ranks says how many ranks join their batch statistics with sync-bn; set sync-bn too.");
        }

        if (config.Optimizer.SyncBatchNormRanks > 1 && config.Optimizer.Ranks > 1 && config.Optimizer.Ranks % config.Optimizer.SyncBatchNormRanks != 0)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"sync-bn-ranks is {config.Optimizer.SyncBatchNormRanks}, but {config.Optimizer.Ranks} ranks do not divide into such groups."));
        }

        if (config.Optimizer.FrozenStatistics && (config.Optimizer.GhostBatch > 0 || config.Optimizer.BatchRenormalize))
        {
            throw new UserErrorException("freeze-bn uses no batch statistics: ghost-batch and batch-renorm have no meaning with it.");
        }

        if (config.Schedule is ScheduleKind.Cosine or ScheduleKind.Linear && config.MinimumLearningRate > config.LearningRate)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"minimum-learning-rate is {config.MinimumLearningRate}, more than the learning-rate of {config.LearningRate} that the schedule starts from."));
        }

        if (config.Optimizer.FrozenStatistics && config.Optimizer.ConstantStatistics)
        {
            throw new UserErrorException("freeze-bn uses no batch statistics: constant-statistics has no meaning with it.");
        }

        if (config.Optimizer.Height != config.Optimizer.Width)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"The images of a run are square, of image-size pixels; the optimizer's height is {config.Optimizer.Height}, its width {config.Optimizer.Width}."));
        }

        if (config.CycleEpochs > 0 && config.Schedule != ScheduleKind.Cosine)
        {
            throw new UserErrorException("cycle-epochs is for schedule cosine; set schedule to it, or leave cycle-epochs out.");
        }

        config.Augmentation.Validate();
        if (config.ResetClassifier && config.InitialCheckpoint.Length == 0)
        {
            throw new UserErrorException("reset-classifier needs initial-checkpoint: without one every weight is new.");
        }
    }

    /// <summary>
    /// Hash of the settings that decide a run's numbers (network, optimizer, images and their order, length); two runs with the same hash continue
    /// each other. Paths, machine and logging are left out.
    /// </summary>
    public static string Hash(RunConfig config)
    {
        IEnumerable<string> lines = All
            .Where(s => s.DecidesNumbers && !(s.HashedWhereChanged && s.IsDefault(config)))
            .Select(s => $"{s.Name}: {s.Hashed(config)}");
        byte[] text = System.Text.Encoding.UTF8.GetBytes(string.Join('\n', lines));
        return Convert.ToHexStringLower(System.IO.Hashing.XxHash64.Hash(text));
    }
}
