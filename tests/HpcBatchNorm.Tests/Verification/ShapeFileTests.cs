using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Verification;

public sealed class ShapeFileTests
{
    [Theory]
    [InlineData("mb32ic64ih56oc192oh56kh3ph1n\"conv2/3x3\"")]
    [InlineData("mb32_ic64_ih56_oc192_oh56_kh3_ph1_n\"conv2/3x3\"")]
    [InlineData("ic64oc192_ih56kh3oh56_mb32n\"conv2/3x3\"   # padding follows from the output")]
    public void Parse_SquareConvolution_IsTheSameHoweverItIsWritten(string line)
    {
        ShapeProblem problem = One(line);
        Assert.Equal("conv2/3x3", problem.Name);
        Assert.Equal(1, problem.Count);
        Assert.Equal(ConvolutionSpec.Square(new(32, 64, 56, 56), 192, 3, pad: 1), problem.Convolution);
    }

    [Fact]
    public void Parse_PublishedListWithOtherDimensions_LeavesThemOutAndCountsThem()
    {
        List<string> notes = [];
        IReadOnlyList<ShapeProblem> problems = ShapeFile.Parse(
            ["mb32ic3ih224oc64oh112kh7sh2ph3n\"a\"", "mb1ic3id16ih56oc64od16oh56kd3kh3pd1ph1n\"3d\"", "ic16iw100oc16ow98kw3n\"1d\"", "ic16ih8n\"b\""], "list", note: notes.Add);
        Assert.Equal(["a", "b"], problems.Select(p => p.Name));
        Assert.Equal("list: 2 problems are not of images (ih, iw) but have one or three dimensions, and are left out; the first is line 2.", Assert.Single(notes));
    }

    [Fact]
    public void Parse_FirstLayer_PadsAfterOnlyWhatTheOutputNeeds()
    {
        ConvolutionSpec spec = One("mb96ic3ih224oc64oh112kh7sh2ph3n\"googlenet_v2:conv1/7x7_s2\"").Convolution!.Value;
        Assert.Equal(new ConvolutionSpec(new(96, 3, 224, 224), 64, 7, 7, 2, 2, 3, 3, 2, 2), spec);
        Assert.Equal(new Shape(96, 64, 112, 112), spec.Dst);
    }

    [Fact]
    public void Parse_StrideLeavesRowsUnread_NeedsNoPaddingAfter()
    {
        ConvolutionSpec spec = One("ic16ih8oc16oh4kh1sh2ph0").Convolution!.Value;
        Assert.Equal((0, 0, 4), (spec.PadTop, spec.PadBottom, spec.Dst.H));
    }

    [Fact]
    public void Parse_WidthsGiven_OverrideHeights()
    {
        ConvolutionSpec spec = One("g2mb1ic8ih10iw20oc6kh3kw5sh1sw2ph1pw2dh1dw0").Convolution!.Value;
        Assert.Equal(new ConvolutionSpec(new(1, 8, 10, 20), 6, 3, 5, 1, 2, 1, 2, 1, 2, 2, 1, 2), spec);
    }

    [Fact]
    public void Parse_DilationIsZeroBased()
    {
        ConvolutionSpec spec = One("ic8ih10oc8oh10kh3ph2dh1").Convolution!.Value;
        Assert.Equal((2, 2, 2, 2), (spec.DilationH, spec.DilationW, spec.PadTop, spec.PadBottom));
        Assert.Equal(10, spec.Dst.H);
    }

    [Theory]
    [InlineData("mb96_ic64_ih112n\"googlenet_v2:conv1/7x7_s2/bn\"", 96, 64, 112, 112, 1)]
    [InlineData("mb96ic64ih56n\"googlenet_v2:conv2/3x3_reduce/bn*7\"", 96, 64, 56, 56, 7)]
    [InlineData("ic17ih4iw9n\"odd\"*3", 2, 17, 4, 9, 3)]
    public void Parse_BatchNorm_ReadsShapeAndCount(string line, int n, int c, int h, int w, int count)
    {
        ShapeProblem problem = One(line);
        Assert.Null(problem.Convolution);
        Assert.Equal(new BatchNormSpec(new(n, c, h, w)), problem.BatchNorm);
        Assert.Equal(count, problem.Count);
        Assert.DoesNotContain('*', problem.Name);
    }

    [Fact]
    public void Parse_Epsilon_IsRead() => Assert.Equal(1e-3f, One("ic8ih4eps1e-3").BatchNorm!.Value.Epsilon);

    [Fact]
    public void Parse_CommentsAndBlankLines_AreSkipped()
    {
        IReadOnlyList<ShapeProblem> problems = ShapeFile.Parse(["# a list", "", "  ", "ic16ih8n\"with # inside\"", "ic16ih9 # why"], "list");
        Assert.Equal(["with # inside", "ic16ih9"], problems.Select(p => p.Name));
    }

    [Fact]
    public void Parse_BatchGiven_ReplacesTheLines() =>
        Assert.Equal(3, ShapeFile.Parse(["mb96ic16ih8"], "list", batch: 3)[0].BatchNorm!.Value.Src.N);

    [Theory]
    [InlineData("ic16ih8zz3", "list:2: 'zz' is not a field of a batch normalization; it has mb ic ih iw eps.")]
    [InlineData("ic16ih8oc8kh3zz3", "list:2: 'zz' is not a field of a convolution")]
    [InlineData("ih8", "list:2: the batch normalization lacks 'ic'.")]
    [InlineData("ic16oc16ih8", "list:2: the convolution lacks 'kh'.")]
    [InlineData("ic16ih8ic16", "list:2: 'ic' is given twice.")]
    [InlineData("ic16ih8;", "list:2: cannot read ';' at column 8")]
    [InlineData("ic16id4ih8", "list: no problem line; expected lines like mb32ic64ih56oc192oh56kh3ph1n\"name\". 1 problems are not of images")]
    [InlineData("--dir=FWD_B", "list:2: '--dir=FWD_B' is a benchdnn option")]
    [InlineData("ic16ih8oc16oh4kh3ph1", "list:2: oh4 does not fit: ih8 kh3 sh1 ph1 dh0 give 7.")]
    [InlineData("ic16ih8oc16kh9", "list:2: 'ic16ih8oc16kh9': a window of 9 rows does not fit an input of 8")]
    [InlineData("g3ic16ih8oc16kh3", "list:2: Convolution 'g3ic16ih8oc16kh3': 3 groups must divide")]
    [InlineData("ic16ih8n\"open", "list:2: the name in 'ic16ih8n\"open' must end the line")]
    [InlineData("mb1ic16ih1", "list:2: Batch normalization 'mb1ic16ih1' sees one value per statistic")]
    [InlineData("ic16ih8n\"x*0\"", "list:2: a count *N must be at least 1.")]
    public void Parse_WrongLine_NamesFileLineAndFault(string line, string message)
    {
        UserErrorException error = Assert.Throws<UserErrorException>(() => ShapeFile.Parse(["# first line", line], "list"));
        Assert.StartsWith(message, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Fact]
    public void Parse_NoProblem_SaysWhatWasExpected() =>
        Assert.StartsWith("list: no problem line", Assert.Throws<UserErrorException>(() => ShapeFile.Parse(["# only this"], "list")).Message, StringComparison.Ordinal);

    [Fact]
    public void Read_MissingFile_NamesIt()
    {
        string path = Path.Combine(Path.GetTempPath(), "no-such-shapes.txt");
        Assert.StartsWith(path, Assert.Throws<UserErrorException>(() => ShapeFile.Read(path)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void FromShapes_EqualNames_StayDistinct()
    {
        IReadOnlyList<VerificationCase> cases = LayerCases.FromShapes(ShapeFile.Parse(["ic8ih4n\"a\"", "ic8ih5n\"a\""], "list"), "--shapes list");
        Assert.Equal(["a/exact", "a/random", "a#2/exact", "a#2/random"], cases.Select(c => c.Name));
        Assert.Equal("hpcbn verify --backend onednn --shapes list --case a/exact", cases[0].Reproduce("onednn"));
    }

    private static ShapeProblem One(string line) => Assert.Single(ShapeFile.Parse([line], "list"));
}
