using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Models;

/// <summary>The networks this library knows by name.</summary>
public static class NetworkCatalog
{
    private static readonly Dictionary<string, (string Summary, Func<NetworkOptions, Network> Create)> Entries = new(StringComparer.Ordinal)
    {
        ["bn-inception"] = ("The paper's Figure 5 with batch normalization before every nonlinearity", o => Inception("bn-inception", o, o.BatchNorm ?? true, 0)),
        ["inception"] = ("The same without batch normalization: biases, LRN, dropout 40 %", o => Inception("inception", o, o.BatchNorm ?? false, 0.4f)),
        ["inception-tiny"] = ("Six small inception modules for images of 32 to 64 pixels, 0.33 M parameters", InceptionTiny),
        ["mnist-mlp"] = ("Section 4.1: three hidden layers of 100 sigmoid units on 28x28 images", MnistMlp),
    };

    /// <summary>Name and one-line summary of each network.</summary>
    public static IReadOnlyList<(string Name, string Summary)> All => [.. Entries.Select(e => (e.Key, e.Value.Summary))];

    /// <summary>Makes a network by name.</summary>
    /// <exception cref="UserErrorException">There is no network of that name.</exception>
    public static Network Create(string name, NetworkOptions options)
    {
        if (!Entries.TryGetValue(name, out (string Summary, Func<NetworkOptions, Network> Create) entry))
        {
            throw new UserErrorException($"There is no network '{name}'. Known: {string.Join(", ", Entries.Keys)}.");
        }

        if (options.Classes < 2)
        {
            throw new UserErrorException($"A classifier needs at least 2 classes, got {options.Classes}.");
        }

        return entry.Create(options);
    }

    /// <summary>
    /// Figure 5. The paper names the stride-2 modules by their input grid; branch widths are literal. The stem's 3x3/2 poolings round up (Caffe, TensorFlow).
    /// </summary>
    private static Network Inception(string name, NetworkOptions options, bool batchNorm, float dropout)
    {
        if (options.Width is not (576 or 608))
        {
            throw new UserErrorException($"The width of {name} is 576 or 608 (channels of modules 4c and 4d), not {options.Width}.");
        }

        int projection = options.Width == 608 ? 128 : 96;
        var builder = new NetworkBuilder(name);
        var modules = new InceptionModules(builder, options, batchNorm);
        bool lrn = options.Lrn ?? !batchNorm;

        Node node = builder.Add("input", new InputLayer(3));
        node = options.SeparableFirstConvolution
            ? modules.SeparableUnit("conv1", node, 3, 8, 64, 7, 2)
            : modules.Unit("conv1", node, 64, 7, 2);
        node = builder.Add("pool1", new PoolingLayer(PoolingKind.Max, 3, 2, ceil: true), node);
        node = lrn ? builder.Add("lrn1", new LrnLayer(), node) : node;
        node = modules.Unit("conv2_reduce", node, 64, 1);
        node = modules.Unit("conv2", node, 192, 3);
        node = lrn ? builder.Add("lrn2", new LrnLayer(), node) : node;
        node = builder.Add("pool2", new PoolingLayer(PoolingKind.Max, 3, 2, ceil: true), node);

        ModuleRow[] rows =
        [
            new("inception_3a", 64, 64, 64, 64, 96, ModulePool.Average, 32),
            new("inception_3b", 64, 64, 96, 64, 96, ModulePool.Average, 64),
            new("inception_3c", 0, 128, 160, 64, 96, ModulePool.PassThrough, 0),
            new("inception_4a", 224, 64, 96, 96, 128, ModulePool.Average, 128),
            new("inception_4b", 192, 96, 128, 96, 128, ModulePool.Average, 128),
            new("inception_4c", 160, 128, 160, 128, 160, ModulePool.Average, projection),
            new("inception_4d", 96, 128, 192, 160, 192, ModulePool.Average, projection),
            new("inception_4e", 0, 128, 192, 192, 256, ModulePool.PassThrough, 0),
            new("inception_5a", 352, 192, 320, 160, 224, ModulePool.Average, 128),
            new("inception_5b", 352, 192, 320, 192, 224, ModulePool.Max, 128),
        ];
        foreach (ModuleRow row in rows)
        {
            node = modules.Module(node, row, perActivation: options.PerActivationLast && row.Name == "inception_5b");
            if (options.AuxiliaryHeads && row.Name is ("inception_4a" or "inception_4d"))
            {
                modules.AuxiliaryHead($"{row.Name}_head", node);
            }
        }

        modules.Classifier(node, options.Dropout ?? dropout);
        return builder.Build(minimumImageSize: 32);
    }

    private static Network InceptionTiny(NetworkOptions options)
    {
        bool batchNorm = options.BatchNorm ?? true;
        var builder = new NetworkBuilder("inception-tiny");
        var modules = new InceptionModules(builder, options, batchNorm);
        Node node = builder.Add("input", new InputLayer(3));
        node = modules.Unit("conv1", node, 32, 3);
        ModuleRow[] rows =
        [
            new("inception_3a", 16, 16, 16, 16, 24, ModulePool.Average, 8),
            new("inception_3b", 16, 16, 24, 16, 24, ModulePool.Average, 16),
            new("inception_3c", 0, 32, 40, 16, 24, ModulePool.PassThrough, 0),
            new("inception_4a", 56, 16, 24, 24, 32, ModulePool.Average, 32),
            new("inception_4e", 0, 32, 48, 48, 64, ModulePool.PassThrough, 0),
            new("inception_5b", 88, 48, 80, 48, 56, ModulePool.Max, 32),
        ];
        foreach (ModuleRow row in rows)
        {
            node = modules.Module(node, row, perActivation: options.PerActivationLast && row.Name == "inception_5b");
        }

        modules.Classifier(node, options.Dropout ?? 0);
        return builder.Build(minimumImageSize: 8);
    }

    private static Network MnistMlp(NetworkOptions options)
    {
        bool batchNorm = options.BatchNorm ?? true;
        ActivationKind activation = options.Activation ?? ActivationKind.Sigmoid;
        Initializer weights = options.InitialDeviation > 0
            ? Initializer.Gaussian(options.InitialDeviation * options.InitialWeightScale)
            : Initializer.FanIn(2 * options.InitialWeightScale * options.InitialWeightScale);
        var builder = new NetworkBuilder("mnist-mlp");
        Node node = builder.Add("input", new InputLayer(1));
        for (int i = 1; i <= options.HiddenLayers; i++)
        {
            node = builder.Add($"hidden{i}/fc", new FullyConnectedLayer(options.HiddenUnits, weights, Bias: !batchNorm), node);
            node = batchNorm ? builder.Add($"hidden{i}/bn", new BatchNormLayer(options.Epsilon, options.AveragingFactor), node) : node;
            node = builder.Add($"hidden{i}/{activation.Name()}", new ActivationLayer(activation), node);
            node = options.Dropout > 0 ? builder.Add($"hidden{i}/dropout", new DropoutLayer(options.Dropout.Value), node) : node;
        }

        node = builder.Add("fc", new FullyConnectedLayer(options.Classes, weights), node);
        builder.Add("loss", new SoftmaxLossLayer(), node);
        return builder.Build(minimumImageSize: 1);
    }
}
