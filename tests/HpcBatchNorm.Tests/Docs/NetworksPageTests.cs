using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Docs;

/// <summary>docs/networks.md: its sample is compiled here and must stand there word for word, its file is read, its table names every type.</summary>
public sealed class NetworksPageTests
{
    private static readonly string Page = File.ReadAllText(RepoPaths.InRepo("docs", "networks.md"));

    [Fact]
    public void Sample_BuildsTheNetworkItSays()
    {
        // sample
        var b = new NetworkBuilder("small-resnet");
        Node x = b.Input(channels: 3);
        x = b.Convolution("conv1", x, 32, kernel: 3, pad: 1);
        x = b.Relu("relu1", b.BatchNorm("bn1", x));

        Node block = b.Convolution("block/conv1", x, 32, kernel: (1, 3), pad: (0, 1));
        block = b.Relu("block/relu1", b.BatchNorm("block/bn1", block));
        block = b.Convolution("block/conv2", block, 32, kernel: (3, 1), pad: (1, 0));
        block = b.BatchNorm("block/bn2", block);
        x = b.Relu("block/relu2", b.Sum("block/sum", block, x));

        x = b.GlobalAveragePooling("pool", x);
        b.Loss(b.FullyConnected("fc", x, outputs: 10));
        Network network = b.Build();

        string json = network.ToJson();
        Network same = Network.FromJson(json);
        // end

        Assert.Equal(10, same.Classes);
        Assert.Equal(1, same.MinimumImageSize);
        Assert.Equal(32 * 27 + 2 * 32 * 32 * 3 + 3 * 64 + 330, same.Infer(1, 32, 32).ParameterCount);
        IEnumerable<string> sample = File.ReadLines(RepoPaths.InRepo("tests", "HpcBatchNorm.Tests", "Docs", "NetworksPageTests.cs"))
            .SkipWhile(l => l.Trim() != "// sample").Skip(1).TakeWhile(l => l.Trim() != "// end").Select(l => l.Length > 8 ? l[8..] : "");
        Assert.Contains(string.Join('\n', sample), Page, StringComparison.Ordinal);
    }

    [Fact]
    public void File_IsRead()
    {
        const string Fence = "```json\n";
        int start = Page.IndexOf(Fence, StringComparison.Ordinal) + Fence.Length;

        Network network = Network.FromJson(Page[start..Page.IndexOf("```", start, StringComparison.Ordinal)]);

        Assert.Equal(11, network.Nodes.Count);
        Assert.Equal(["bn2", "relu1"], network.Nodes.Single(n => n.Name == "sum").Inputs.Select(i => i.Name));
    }

    [Fact]
    public void Table_NamesEveryType() => Assert.All(LayerTypes.BuiltIn, t => Assert.Contains($"`{t}`", Page, StringComparison.Ordinal));
}
