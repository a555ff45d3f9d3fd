using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;

namespace HpcBatchNorm.Training;

/// <summary>Makes the backend a configuration names.</summary>
public static class BackendFactory
{
    /// <summary>Makes the backend; with <c>auto</c> the fastest that works here.</summary>
    public static Backend Create(TrainingConfig config, Action<string> note) => new ReferenceBackend(config.BackendOptions);
}
