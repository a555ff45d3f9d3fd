using HpcBatchNorm.Tensors;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Verification;

public sealed class VerificationReportTests
{
    private static readonly Tensor Dst = new("dst", new Shape(2, 2, 1, 3), TensorRole.Activation);

    [Fact]
    public void Compare_OneBadElement_NamesItsPlaceAndKeepsTheRestIn()
    {
        double[] expected = new double[12], actual = new double[12], bound = new double[12];
        Array.Fill(bound, 0.5);
        actual[10] = 2;
        actual[3] = 0.5;
        TensorResult result = TensorResult.Compare("copy 'c'", "dst", Dst, "native", actual, expected, bound);
        Assert.Equal((12L, 1L), (result.Elements, result.Failed));
        Assert.Equal(new ElementResult("1,1,0,1", 2, 0, 0.5), result.Worst);
        Assert.Equal([result.Worst], result.FirstFailed);
        Assert.Equal(4, result.Worst.Ratio);
    }

    [Fact]
    public void Compare_ManyBadElements_KeepsTheFirstFive()
    {
        double[] ones = [.. Enumerable.Repeat(1.0, 12)];
        TensorResult result = TensorResult.Compare("copy 'c'", "dst", Dst, "native", ones, new double[12], new double[12]);
        Assert.Equal(12, result.Failed);
        Assert.Equal(["0,0,0,0", "0,0,0,1", "0,0,0,2", "0,1,0,0", "0,1,0,1"], result.FirstFailed.Select(e => e.Position));
    }

    [Theory]
    [InlineData(double.NaN, 0)]
    [InlineData(0, double.NaN)]
    [InlineData(double.NaN, double.NaN)]
    [InlineData(double.PositiveInfinity, 1)]
    public void Ratio_NotANumber_IsInfinite(double actual, double expected) =>
        Assert.Equal(double.PositiveInfinity, new ElementResult("0,0,0,0", actual, expected, 1).Ratio);

    [Fact]
    public void Ratio_EqualValuesWithoutSlack_IsZero() => Assert.Equal(0, new ElementResult("0,0,0,0", 3, 3, 0).Ratio);

    [Fact]
    public void Describe_FailedCase_HandsOverNumbersAndACommand()
    {
        VerificationReport report = new("onednn", "fp32", [Result("good", 1.0), Result("bad", 2.0), Result("broken", 1.0, "NotSupportedException: no")]);
        Assert.Equal((3, 2), (report.Cases, report.Failed));
        Assert.Equal("bad", report.Worst!.Case.Name);
        Assert.Equal(
            """
            bad: FAILED
              dst of copy 'c' (native): 1 of 1 elements outside their bounds
                worst [0,0,0,0] actual 2 expected 1 error 1 bound 0.25
                [0,0,0,0] actual 2 expected 1 error 1 bound 0.25
              reproduce: hpcbn verify --backend onednn --shapes list.txt --case bad
            broken: FAILED
              NotSupportedException: no
              reproduce: hpcbn verify --backend onednn --shapes list.txt --case broken
            onednn fp32: 3 cases, 2 failed; worst dst of bad, error 1 of bound 0.25
            """, report.Describe(), ignoreLineEndingDifferences: true);
    }

    [Fact]
    public void Rows_OnePerCase_InOrder()
    {
        VerificationReport report = new("onednn", "fp32", [Result("good", 1.0), Result("bad", 2.0)]);
        Assert.Equal([new("good", "dst", "0", "0.25", "ok"), new("bad", "dst", "1", "0.25", "FAILED")], report.Rows());
        Assert.Equal("bad", Assert.Single(report.Rows(failedOnly: true)).Case);
    }

    [Fact]
    public void Worst_EmptyList_IsNull() => Assert.Null(new VerificationReport("onednn", "fp32", []).Worst);

    private static CaseResult Result(string name, double actual, params string[] problems)
    {
        VerificationCase verificationCase = new(name, InputKind.Random, [], new Dictionary<Tensor, TensorFill>()) { Options = "--shapes list.txt" };
        TensorResult tensor = TensorResult.Compare("copy 'c'", "dst", new Tensor("dst", Shape.Vector(1), TensorRole.Activation), "native", [actual], [1.0], [0.25]);
        return new CaseResult(verificationCase, "onednn", [tensor], problems, TimeSpan.Zero);
    }
}
