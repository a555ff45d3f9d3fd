using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Verification;

public sealed class VerifierTests
{
    [Fact]
    public void HardCases_ReferenceAgainstItself_PassesAll()
    {
        using ReferenceBackend backend = new(), reference = new();
        VerificationReport report = Verifier.Run(backend, reference, HardCases.For(new BackendTraits(16, true)), null, TestContext.Current.CancellationToken);
        Assert.True(report.Failed == 0, report.Describe());
        Assert.True(report.Cases > 250, $"only {report.Cases} cases");
    }

    /// <summary>Half a unit in the last place of every result: an implementation as good as single precision allows must pass.</summary>
    [Fact]
    public void HardCases_ResultsRoundedToSingle_PassesAll()
    {
        using AlteredBackend backend = new()
        {
            After = (operation, values) =>
            {
                foreach (Tensor tensor in operation.Writes.Where(t => t.Role != TensorRole.Workspace))
                {
                    values.Change(tensor, v =>
                    {
                        for (int i = 0; i < v.Length; i++)
                        {
                            v[i] = (float)v[i];
                        }
                    });
                }
            },
        };
        using ReferenceBackend reference = new();
        VerificationReport report = Verifier.Run(backend, reference, HardCases.For(backend.Traits), null, TestContext.Current.CancellationToken);
        Assert.True(report.Failed == 0, report.Describe());
    }

    [Fact]
    public void HardCases_Names_AreUnique()
    {
        Assert.Empty(HardCases.For(new BackendTraits(16, true)).GroupBy(c => c.Name).Where(g => g.Count() > 1).Select(g => g.Key));
    }
}
