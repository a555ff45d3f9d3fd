using HpcBatchNorm.Backends;

namespace HpcBatchNorm.Tests.Native;

/// <summary>What the tests of this folder share: they run where libhbn was built, and say why they do not elsewhere (never where HBN_REQUIRE asks for it).</summary>
internal static class OneDnn
{
    /// <summary>The backend; skips the test with the load report when it cannot be used here.</summary>
    public static Backend Create(BackendOptions? options = null)
    {
        BackendProbe probe = Backend.Probe().Single(p => p.Name == "onednn");
        bool required = (Environment.GetEnvironmentVariable("HBN_REQUIRE") ?? "").Split(',').Contains("onednn");
        Assert.SkipUnless(probe.Available || required, probe.Report);
        return Backend.Create("onednn", options);
    }
}

/// <summary>Runs alone: the counter of live native objects belongs to the process.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class NativeProcessState
{
    public const string Name = "native process state";
}
