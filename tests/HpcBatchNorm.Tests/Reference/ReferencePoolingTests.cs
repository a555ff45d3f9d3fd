using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using static HpcBatchNorm.Tests.Reference.ReferenceRun;

namespace HpcBatchNorm.Tests.Reference;

public sealed class ReferencePoolingTests
{
    private static readonly double[] OneToNine = [1, 2, 3, 4, 5, 6, 7, 8, 9];

    public static TheoryData<PoolingSpec> Geometries { get; } =
    [
        .. from kind in Enum.GetValues<PoolingKind>()
           from spec in new[]
           {
               PoolingSpec.Square(new Shape(2, 3, 6, 5), kind, kernel: 3, stride: 1, pad: 1),
               PoolingSpec.Square(new Shape(1, 2, 8, 8), kind, kernel: 3, stride: 2, ceil: true),
               PoolingSpec.Square(new Shape(1, 2, 7, 6), kind, kernel: 2, stride: 3, pad: 1, ceil: true),
               new PoolingSpec(new Shape(1, 2, 5, 7), kind, 2, 3, 2, 1, 1, 0, 0, 2),
               PoolingSpec.GlobalAverage(new Shape(2, 3, 4, 3)) with { Kind = kind },
           }
           select new TheoryDataRow<PoolingSpec>(spec),
    ];

    // 1 2 3    windows of 2x2 with stride 2; rounding the output count up adds the ones that hang over the right and lower edges:
    // 4 5 6    1 2 4 5 | 3 6 .  .
    // 7 8 9    7 8 . . | 9 . .  .
    [Theory]
    [InlineData(PoolingKind.Max, false, new double[] { 5 })]
    [InlineData(PoolingKind.Max, true, new double[] { 5, 6, 8, 9 })]
    [InlineData(PoolingKind.AverageExcludePadding, true, new double[] { 3, 4.5, 7.5, 9 })]
    [InlineData(PoolingKind.AverageIncludePadding, true, new double[] { 3, 2.25, 3.75, 2.25 })]
    public void Forward_FloorAndCeil_MatchHandComputation(PoolingKind kind, bool ceil, double[] expected)
    {
        PoolingCase c = new(PoolingSpec.Square(new Shape(1, 1, 3, 3), kind, kernel: 2, stride: 2, ceil: ceil));
        using ReferenceRun run = new(c.Forward);
        run[c.Src] = OneToNine;
        run.Execute();
        Assert.Equal(expected, run[c.Dst]);
    }

    /// <summary>
    /// Rows 0 to 2 with a row of padding on each side, windows of 2 with stride 2: they begin at rows -1, 1 and 3, and the third would hold padding alone.
    /// </summary>
    [Fact]
    public void CeilMode_WindowThatWouldBeginBelowTheImage_IsLeftOut()
    {
        PoolingCase c = new(PoolingSpec.Square(new Shape(1, 1, 3, 3), PoolingKind.Max, kernel: 2, stride: 2, pad: 1, ceil: true));
        using ReferenceRun run = new(c.Forward);
        run[c.Src] = OneToNine;
        run.Execute();
        Assert.Equal([1, 3, 7, 9], run[c.Dst]);
    }

    [Fact]
    public void Forward_MaxOfNegativeValues_IsNotWonByPadding()
    {
        PoolingCase c = new(PoolingSpec.Square(new Shape(1, 1, 2, 2), PoolingKind.Max, kernel: 3, stride: 2, pad: 1));
        using ReferenceRun run = new(c.Forward);
        run[c.Src] = [-4, -3, -2, -1];
        run.Execute();
        Assert.Equal([-1], run[c.Dst]);
    }

    [Fact]
    public void Backward_TiedMaximum_GoesToTheFirstInRowMajorOrder()
    {
        // All equal: each 2x2 window with stride 1 is won by its upper left corner.
        PoolingCase c = new(PoolingSpec.Square(new Shape(1, 1, 3, 3), PoolingKind.Max, kernel: 2, stride: 1));
        using ReferenceRun run = new(c.Forward, c.Backward);
        run[c.DiffDst] = [1, 2, 3, 4];
        run.Execute();
        Assert.Equal([1, 2, 0, 3, 4, 0, 0, 0, 0], run[c.DiffSrc]);
    }

    [Fact]
    public void Backward_OverlappingAverages_Accumulate()
    {
        // Four 2x2 windows with stride 1, gradient 4 each: every position gets 1 per window that holds it.
        PoolingCase c = new(PoolingSpec.Square(new Shape(1, 1, 3, 3), PoolingKind.AverageExcludePadding, kernel: 2, stride: 1));
        using ReferenceRun run = new(c.Forward, c.Backward);
        run[c.DiffDst] = [4, 4, 4, 4];
        run.Execute();
        Assert.Equal([1, 2, 1, 2, 4, 2, 1, 2, 1], run[c.DiffSrc]);
    }

    [Theory]
    [MemberData(nameof(Geometries))]
    public void Backward_AnyGeometry_MatchesFiniteDifferences(PoolingSpec spec)
    {
        PoolingCase c = new(spec);
        Dictionary<Tensor, double[]> inputs = new() { [c.Src] = GradientCheck.AwayFromKinks(c.Src, 1) };
        GradientCheck.Verify([c.Forward], [c.Backward], inputs, c.Dst, c.DiffDst, (c.Src, c.DiffSrc));
    }

    [Theory]
    [MemberData(nameof(Geometries))]
    public void BothPasses_OnSlices_EqualDenseOnes(PoolingSpec spec)
    {
        PoolingCase dense = new(spec), sliced = new(spec, (name, shape) => Float64("wide." + name, shape.WithChannels(9)).Slice(name, 4, shape.C));
        using ReferenceRun expected = new(dense.Forward, dense.Backward), actual = new(sliced.Forward, sliced.Backward);
        foreach ((ReferenceRun run, PoolingCase c) in new[] { (expected, dense), (actual, sliced) })
        {
            run[c.Src] = Random(c.Src, 1);
            run[c.DiffDst] = Random(c.DiffDst, 2);
            run.Execute();
        }

        Assert.Equal(expected[dense.Dst], actual[sliced.Dst]);
        Assert.Equal(expected[dense.DiffSrc], actual[sliced.DiffSrc]);
    }

    [Fact]
    public void Workspace_OfAnyDeclaredShape_GetsTheRoomItNeeds()
    {
        PoolingSpec spec = PoolingSpec.Square(new Shape(2, 3, 6, 5), PoolingKind.Max, kernel: 3, stride: 1, pad: 1);
        PoolingCase c = new(spec);
        using ReferenceRun run = new(c.Forward);
        Assert.Equal(8 * spec.Dst.Count, run.Runner[c.Workspace].Bytes);
    }

    private sealed class PoolingCase
    {
        public PoolingCase(PoolingSpec spec, Func<string, Shape, Tensor>? activation = null)
        {
            activation ??= (name, shape) => Float64(name, shape);
            Src = activation("src", spec.Src);
            Dst = activation("dst", spec.Dst);
            DiffDst = activation("diffDst", spec.Dst);
            DiffSrc = activation("diffSrc", spec.Src);
            Workspace = new Tensor("workspace", Shape.Vector(1), TensorRole.Workspace, TensorLayout.Opaque, DataType.UInt8);
            Forward = new PoolingForward("pool", spec, Src, Dst, Workspace);
            Backward = new PoolingBackward("pool", spec, DiffDst, Workspace, DiffSrc);
        }

        public Tensor Src { get; }

        public Tensor Dst { get; }

        public Tensor DiffDst { get; }

        public Tensor DiffSrc { get; }

        public Tensor Workspace { get; }

        public PoolingForward Forward { get; }

        public PoolingBackward Backward { get; }
    }
}
