using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Models;

/// <summary>The networks that are known by name: those that come with the library, and whatever a program adds with <see cref="Register"/>.</summary>
public static class NetworkCatalog
{
    private static readonly Lock Gate = new();

    // In the order of registration, which is the order of lists.
    private static readonly List<Entry> Entries =
    [
        new("bn-inception", "The paper's Figure 5 with batch normalization before every nonlinearity", o => Inception("bn-inception", o, o.BatchNorm ?? true, 0), null),
        new("inception", "The same without batch normalization: biases, LRN, dropout 40 %", o => Inception("inception", o, o.BatchNorm ?? false, 0.4f), null),
        new("inception-tiny", "Six small inception modules for images of 32 to 64 pixels, 0.33 M parameters", InceptionTiny, null),
        new("mnist-mlp", "Section 4.1: three hidden layers of 100 sigmoid units on 28x28 images", MnistMlp, null),
        new("resnet-18", "Residual network of 18 layers, 11.7 M parameters", o => ResNets.Create("resnet-18", o, false, 2, 2, 2, 2), ResNets.Options),
        new("resnet-34", "Residual network of 34 layers, 21.8 M parameters", o => ResNets.Create("resnet-34", o, false, 3, 4, 6, 3), ResNets.Options),
        new("resnet-50", "Residual network of 50 layers in bottlenecks (version 1.5), 25.6 M parameters", o => ResNets.Create("resnet-50", o, true, 3, 4, 6, 3), ResNets.Options),
        new("resnet-101", "Residual network of 101 layers in bottlenecks (version 1.5), 44.5 M parameters", o => ResNets.Create("resnet-101", o, true, 3, 4, 23, 3), ResNets.Options),
        new("inception-v3", "Szegedy et al. 2015b: factorised convolutions, for images of 299 pixels, 23.8 M parameters", InceptionV3.Create, InceptionV3.Options),
    ];

    private sealed record Entry(string Name, string Summary, Func<NetworkOptions, Network> Create, IReadOnlyCollection<string>? Options);

    /// <summary>Name and one-line summary of each network.</summary>
    public static IReadOnlyList<(string Name, string Summary)> All
    {
        get
        {
            lock (Gate)
            {
                return [.. Entries.Select(e => (e.Name, e.Summary))];
            }
        }
    }

    /// <summary>
    /// Adds a network, which from then on can be named wherever a network's name is asked for. Give <paramref name="options"/>, the names of the properties of
    /// <see cref="NetworkOptions"/> that <paramref name="create"/> looks at, to have all others refused when they are set; null lets everything through.
    /// </summary>
    /// <exception cref="ArgumentException">The name is empty, or there is a network of that name; or an option has no such name.</exception>
    public static void Register(string name, string summary, Func<NetworkOptions, Network> create, IReadOnlyCollection<string>? options = null)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(name);
        ArgumentNullException.ThrowIfNull(summary);
        ArgumentNullException.ThrowIfNull(create);
        if (options?.FirstOrDefault(o => !NetworkOptions.Names.Contains(o)) is { } unknown)
        {
            throw new ArgumentException($"Network '{name}' says that it looks at the option '{unknown}', which does not exist. Options: {string.Join(", ", NetworkOptions.Names)}.", nameof(options));
        }

        lock (Gate)
        {
            if (Entries.Exists(e => e.Name == name))
            {
                throw new ArgumentException($"There is a network '{name}' already; register yours under another name.", nameof(name));
            }

            Entries.Add(new Entry(name, summary, create, options is null ? null : [.. options]));
        }
    }

    /// <summary>Makes a network by name.</summary>
    /// <exception cref="UserErrorException">There is no network of that name, or an option is set that means nothing for it.</exception>
    public static Network Create(string name, NetworkOptions options)
    {
        ArgumentNullException.ThrowIfNull(name);
        ArgumentNullException.ThrowIfNull(options);
        Entry? entry;
        lock (Gate)
        {
            entry = Entries.Find(e => e.Name == name);
        }

        if (entry is null)
        {
            throw new UserErrorException($"There is no network '{name}'. Known: {string.Join(", ", All.Select(n => n.Name))}.");
        }

        if (entry.Options is not null && options.NamesOfSet().FirstOrDefault(o => !entry.Options.Contains(o)) is { } meaningless)
        {
            throw new UserErrorException(
                $"The option {meaningless} means nothing for {name}, but it is set. Leave it at its default; {name} looks at {string.Join(", ", entry.Options)}.");
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
            node = batchNorm ? builder.Add($"hidden{i}/bn", new BatchNormLayer(options.Epsilon ?? NetworkOptions.UsualEpsilon, options.AveragingFactor), node) : node;
            node = builder.Add($"hidden{i}/{activation.Name()}", new ActivationLayer(activation), node);
            node = options.Dropout > 0 ? builder.Add($"hidden{i}/dropout", new DropoutLayer(options.Dropout.Value), node) : node;
        }

        node = builder.Add("fc", new FullyConnectedLayer(options.Classes, weights), node);
        builder.Add("loss", new SoftmaxLossLayer(), node);
        return builder.Build(minimumImageSize: 1);
    }
}
