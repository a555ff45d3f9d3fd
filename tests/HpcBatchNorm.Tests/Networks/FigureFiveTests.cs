using HpcBatchNorm.Backends;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Networks;

/// <summary>
/// The Inception networks node by node against one table, the paper's Figure 5 in its own columns. What the table leaves open is in docs/decisions/006; everything
/// else here is written out, not computed by what it checks.
/// </summary>
public sealed class FigureFiveTests
{
    /// <summary>Row, input grid, #1x1, #3x3 reduce, #3x3, double #3x3 reduce, double #3x3, pooling, projection, output channels (sum of the branches).</summary>
    private const string Table = """
        3a 28  64  64  64  64  96 avg          32  256
        3b 28  64  64  96  64  96 avg          64  320
        3c 28   0 128 160  64  96 pass-through  0  576
        4a 14 224  64  96  96 128 avg         128  576
        4b 14 192  96 128  96 128 avg         128  576
        4c 14 160 128 160 128 160 avg         128  608
        4d 14  96 128 192 160 192 avg         128  608
        4e 14   0 128 192 192 256 pass-through  0 1056
        5a  7 352 192 320 160 224 avg         128 1024
        5b  7 352 192 320 192 224 max         128 1024
        """;

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void EveryNode_IsTheTables(bool batchNorm)
    {
        Network network = NetworkCatalog.Create(batchNorm ? "bn-inception" : "inception", new NetworkOptions());

        AssertSame(Expected(batchNorm), network);
    }

    [Fact]
    public void PrintedWidths_ChangeTheProjectionsOf4cAnd4dAlone()
    {
        List<(string Name, Layer Layer, string[] Inputs)> expected = Expected(true);
        foreach (string name in new[] { "inception_4c/projection/conv", "inception_4d/projection/conv" })
        {
            int i = expected.FindIndex(e => e.Name == name);
            expected[i] = expected[i] with { Layer = Convolution(96, 1) };
        }

        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions { Width = 576 });

        AssertSame(expected, network);
        Assert.Equal([576, 576, 1024], new[] { "4c", "4d", "4e" }.Select(r => network.Infer(1, 224, 224)[network.Nodes.Single(n => n.Name == $"inception_{r}/concat")].C));
    }

    [Fact]
    public void SeparableFirstConvolution_IsDepthwiseWithMultiplier8_ThenPointwise()
    {
        List<(string Name, Layer Layer, string[] Inputs)> expected = Expected(true);
        int i = expected.FindIndex(e => e.Name == "conv1/conv");
        expected[i] = ("conv1/conv", Convolution(64, 1), ["conv1/depthwise"]);
        expected.Insert(i, ("conv1/depthwise", new ConvolutionLayer(24, 7, Initializer.FanIn(2), 2, 3, groups: 3), ["input"]));

        AssertSame(expected, NetworkCatalog.Create("bn-inception", new NetworkOptions { SeparableFirstConvolution = true }));
    }

    /// <summary>Options that change layers at some places, and at no other.</summary>
    [Fact]
    public void Options_ChangeWhatTheySay_AndNothingElse()
    {
        Each(new NetworkOptions { PerActivationLast = true }, true, (name, layer) => layer is BatchNormLayer bn && name.StartsWith("inception_5b/", StringComparison.Ordinal) ? bn with { PerActivation = true } : layer);
        Each(new NetworkOptions { Epsilon = 1e-3f, AveragingFactor = 0.25f }, true, (_, layer) => layer is BatchNormLayer bn ? bn with { Epsilon = 1e-3f, AveragingFactor = 0.25f } : layer);
        Each(new NetworkOptions { AverageIncludesPadding = false }, true, (_, layer) => layer is PoolingLayer { Kind: PoolingKind.AverageIncludePadding } pool ? pool with { Kind = PoolingKind.AverageExcludePadding } : layer);
        Each(new NetworkOptions { UnpaddedPools = true }, true, (name, layer) => name is "inception_3c/pool" or "inception_4e/pool" ? new PoolingLayer(PoolingKind.Max, 3, 2, ceil: true) : layer);
        Each(new NetworkOptions { Dropout = 0.1f }, false, (_, layer) => layer is DropoutLayer ? new DropoutLayer(0.1f) : layer);
        // He's gain is the square of the deviation: 1.5 times the deviation. The classifier is not a convolution.
        Each(new NetworkOptions { InitialWeightScale = 1.5 }, true, (_, layer) => layer is ConvolutionLayer c ? c with { Initializer = Initializer.FanIn(4.5) } : layer);
        Each(new NetworkOptions { Classes = 40 }, true, (_, layer) => layer is FullyConnectedLayer fc ? fc with { Outputs = 40 } : layer);
    }

    /// <summary>GoogLeNet's auxiliary classifiers, on 4a and 4d, each with its own dropout of 70 % and a loss weight of 0.3.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void AuxiliaryHeads_StandOn4aAnd4d(bool batchNorm)
    {
        List<(string Name, Layer Layer, string[] Inputs)> expected = Expected(batchNorm);
        foreach (string row in new[] { "inception_4a", "inception_4d" })
        {
            string head = $"{row}_head";
            List<(string, Layer, string[])> nodes =
            [
                ($"{head}/pool", new PoolingLayer(PoolingKind.AverageExcludePadding, 5, 3, 2), [$"{row}/concat"]),
                .. Unit($"{head}/1x1", $"{head}/pool", 128, 1, 1, batchNorm),
                ($"{head}/fc1", new FullyConnectedLayer(1024, Initializer.FanIn(2), Bias: !batchNorm), [$"{head}/1x1/relu"]),
            ];
            if (batchNorm)
            {
                nodes.Add(($"{head}/fc1/bn", new BatchNormLayer(1e-5f, 0.1f), [$"{head}/fc1"]));
            }

            nodes.Add(($"{head}/fc1/relu", new ActivationLayer(ActivationKind.Relu), [batchNorm ? $"{head}/fc1/bn" : $"{head}/fc1"]));
            nodes.Add(($"{head}/dropout", new DropoutLayer(0.7f), [$"{head}/fc1/relu"]));
            nodes.Add(($"{head}/fc", new FullyConnectedLayer(1000, Initializer.FanIn(1)), [$"{head}/dropout"]));
            nodes.Add(($"{head}/loss", new SoftmaxLossLayer(0.3f), [$"{head}/fc"]));
            expected.InsertRange(expected.FindIndex(e => e.Name == $"{row}/concat") + 1, nodes);
        }

        AssertSame(expected, NetworkCatalog.Create(batchNorm ? "bn-inception" : "inception", new NetworkOptions { AuxiliaryHeads = true }));
    }

    /// <summary>Layers of dropout draw masks of their own, and a layer keeps its mask for the way back.</summary>
    [Fact]
    public void DropoutLayers_DrawFromStreamsOfTheirOwn()
    {
        using Backend backend = Backend.Create("reference");
        Network network = NetworkCatalog.Create("inception", new NetworkOptions { Classes = 4, AuxiliaryHeads = true });
        Plan plan = TrainingPlanner.Plan(network, new TrainingOptions { Batch = 2, Height = 64, Width = 64 }, backend.Traits);

        Dropout[] dropouts = [.. plan.Operations.OfType<Dropout>()];

        Assert.Equal(3, dropouts.Count(d => !d.Backward));
        Assert.Equal(3, dropouts.Where(d => !d.Backward).Select(d => d.Spec.Stream).Distinct().Count());
        Assert.All(dropouts.Where(d => d.Backward), back => Assert.Single(dropouts, d => !d.Backward && d.Spec.Stream == back.Spec.Stream && d.Spec.Ratio == back.Spec.Ratio));
    }

    private static void Each(NetworkOptions options, bool batchNorm, Func<string, Layer, Layer> change)
    {
        (string Name, Layer Layer, string[] Inputs)[] plain = [.. Expected(batchNorm)], changed = [.. plain.Select(e => e with { Layer = change(e.Name, e.Layer) })];

        Assert.NotEqual(plain.Select(e => e.Layer), changed.Select(e => e.Layer));
        AssertSame(changed, NetworkCatalog.Create(batchNorm ? "bn-inception" : "inception", options));
    }

    private static void AssertSame(IReadOnlyList<(string Name, Layer Layer, string[] Inputs)> expected, Network network)
    {
        Assert.Equal(expected.Select(e => $"{e.Name} <- {string.Join(", ", e.Inputs)}"), network.Nodes.Select(n => $"{n.Name} <- {string.Join(", ", n.Inputs.Select(i => i.Name))}"));
        Assert.All(expected.Zip(network.Nodes), pair => Assert.Equal((pair.First.Name, pair.First.Layer), (pair.Second.Name, pair.Second.Layer)));
    }

    private static List<(string Name, Layer Layer, string[] Inputs)> Expected(bool batchNorm)
    {
        List<(string Name, Layer Layer, string[] Inputs)> nodes = [("input", new InputLayer(3), [])];
        nodes.AddRange(Unit("conv1", "input", 64, 7, 2, batchNorm)); // 7x7/2
        nodes.Add(("pool1", new PoolingLayer(PoolingKind.Max, 3, 2, ceil: true), ["conv1/relu"])); // 3x3/2
        if (!batchNorm)
        {
            nodes.Add(("lrn1", new LrnLayer(5, 1e-4f, 0.75f, 1), ["pool1"]));
        }

        nodes.AddRange(Unit("conv2_reduce", batchNorm ? "pool1" : "lrn1", 64, 1, 1, batchNorm)); // #3x3 reduce 64
        nodes.AddRange(Unit("conv2", "conv2_reduce/relu", 192, 3, 1, batchNorm)); // 3x3/1, 192
        if (!batchNorm)
        {
            nodes.Add(("lrn2", new LrnLayer(5, 1e-4f, 0.75f, 1), ["conv2/relu"]));
        }

        nodes.Add(("pool2", new PoolingLayer(PoolingKind.Max, 3, 2, ceil: true), [batchNorm ? "conv2/relu" : "lrn2"])); // 3x3/2
        string input = "pool2";
        foreach (string line in Table.Split('\n'))
        {
            string[] cells = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            int[] numbers = [.. cells.Where((_, i) => i is not (0 or 7)).Select(c => int.Parse(c, System.Globalization.CultureInfo.InvariantCulture))];
            string module = $"inception_{cells[0]}", pooling = cells[7];
            int stride = pooling == "pass-through" ? 2 : 1;
            List<string> branches = [];
            if (numbers[1] > 0)
            {
                nodes.AddRange(Unit($"{module}/1x1", input, numbers[1], 1, 1, batchNorm));
                branches.Add($"{module}/1x1/relu");
            }

            nodes.AddRange(Unit($"{module}/3x3_reduce", input, numbers[2], 1, 1, batchNorm));
            nodes.AddRange(Unit($"{module}/3x3", $"{module}/3x3_reduce/relu", numbers[3], 3, stride, batchNorm));
            nodes.AddRange(Unit($"{module}/double3x3_reduce", input, numbers[4], 1, 1, batchNorm));
            nodes.AddRange(Unit($"{module}/double3x3a", $"{module}/double3x3_reduce/relu", numbers[5], 3, 1, batchNorm));
            nodes.AddRange(Unit($"{module}/double3x3b", $"{module}/double3x3a/relu", numbers[5], 3, stride, batchNorm));
            nodes.Add(($"{module}/pool", new PoolingLayer(pooling == "avg" ? PoolingKind.AverageIncludePadding : PoolingKind.Max, 3, stride, 1), [input]));
            branches.AddRange($"{module}/3x3/relu", $"{module}/double3x3b/relu");
            if (numbers[6] > 0)
            {
                nodes.AddRange(Unit($"{module}/projection", $"{module}/pool", numbers[6], 1, 1, batchNorm));
                branches.Add($"{module}/projection/relu");
            }
            else
            {
                branches.Add($"{module}/pool");
            }

            nodes.Add(($"{module}/concat", new ConcatLayer(), [.. branches]));
            input = $"{module}/concat";
        }

        nodes.Add(("pool", new GlobalAveragePoolingLayer(), [input])); // 7x7/1 at 224 px
        if (!batchNorm)
        {
            nodes.Add(("dropout", new DropoutLayer(0.4f), ["pool"])); // 40 % in the original Inception
        }

        nodes.Add(("fc", new FullyConnectedLayer(1000, Initializer.FanIn(1)), [batchNorm ? "pool" : "dropout"]));
        nodes.Add(("loss", new SoftmaxLossLayer(), ["fc"]));
        return nodes;
    }

    /// <summary>Convolution, batch normalization or a bias, ReLU.</summary>
    private static (string Name, Layer Layer, string[] Inputs)[] Unit(string name, string input, int outputs, int kernel, int stride, bool batchNorm)
    {
        (string, Layer, string[]) convolution = ($"{name}/conv", Convolution(outputs, kernel, stride, bias: !batchNorm), [input]);
        return batchNorm
            ? [convolution, ($"{name}/bn", new BatchNormLayer(1e-5f, 0.1f), [$"{name}/conv"]), ($"{name}/relu", new ActivationLayer(ActivationKind.Relu), [$"{name}/bn"])]
            : [convolution, ($"{name}/relu", new ActivationLayer(ActivationKind.Relu), [$"{name}/conv"])];
    }

    /// <summary>Padded so that stride 1 keeps the image's size.</summary>
    private static ConvolutionLayer Convolution(int outputs, int kernel, int stride = 1, bool bias = false) =>
        new(outputs, kernel, Initializer.FanIn(2), stride, kernel / 2, bias: bias);

    [Fact]
    public void OutputGrids_AreTheTables()
    {
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions());
        NetworkShapes shapes = network.Infer(1, 224, 224);
        foreach (string[] cells in Table.Split('\n').Select(l => l.Split(' ', StringSplitOptions.RemoveEmptyEntries)))
        {
            Node concat = network.Nodes.Single(n => n.Name == $"inception_{cells[0]}/concat");
            int grid = int.Parse(cells[1], System.Globalization.CultureInfo.InvariantCulture), outputs = int.Parse(cells[^1], System.Globalization.CultureInfo.InvariantCulture);
            // The paper prints the input grid of the modules with stride 2.
            int extent = cells[7] == "pass-through" ? grid / 2 : grid;

            Assert.Equal(new Shape(1, outputs, extent, extent), shapes[concat]);
        }

        Assert.Equal(new Shape(1, 64, 112, 112), shapes[network.Nodes.Single(n => n.Name == "conv1/relu")]);
        Assert.Equal(new Shape(1, 64, 56, 56), shapes[network.Nodes.Single(n => n.Name == "pool1")]);
        Assert.Equal(new Shape(1, 192, 28, 28), shapes[network.Nodes.Single(n => n.Name == "pool2")]);
    }
}
