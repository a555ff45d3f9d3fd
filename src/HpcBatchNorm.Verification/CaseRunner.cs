using HpcBatchNorm.Backends;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <summary>A case's operations on the backend under test, as <see cref="Verifier"/> sees them: in one process, or in several ranks together.</summary>
internal abstract class CaseRunner : IDisposable
{
    /// <summary>What the runner itself has seen that must not be.</summary>
    public List<string> Problems { get; } = [];

    /// <summary>Prepares a case.</summary>
    public static CaseRunner Create(Backend backend, VerificationCase verificationCase) =>
        verificationCase.RankImages.Count > 0 ? new RankCaseRunner(backend, verificationCase) : new OneProcess(backend, verificationCase);

    public abstract void Write(Tensor tensor, ReadOnlySpan<double> values);

    public abstract void Write(Tensor tensor, ReadOnlySpan<int> values);

    public abstract void Write(Tensor tensor, ReadOnlySpan<byte> values);

    /// <summary>A tensor's values in logical order.</summary>
    public abstract double[] ReadDouble(Tensor tensor);

    /// <summary>Executes one operation, by its place in the case.</summary>
    public abstract void Execute(int operation, in StepContext context);

    /// <summary>What executes it.</summary>
    public abstract string Implementation(int operation);

    /// <inheritdoc/>
    public abstract void Dispose();

    private sealed class OneProcess(Backend backend, VerificationCase verificationCase) : CaseRunner
    {
        private readonly OperationRunner _runner = new(backend, verificationCase.Precision, verificationCase.Operations);

        public override void Write(Tensor tensor, ReadOnlySpan<double> values) => _runner.Write(tensor, values);

        public override void Write(Tensor tensor, ReadOnlySpan<int> values) => _runner.Write(tensor, values);

        public override void Write(Tensor tensor, ReadOnlySpan<byte> values) => _runner.Write(tensor, values);

        public override double[] ReadDouble(Tensor tensor) => _runner.ReadDouble(tensor);

        public override void Execute(int operation, in StepContext context) => _runner.Kernels[operation].Execute(context);

        public override string Implementation(int operation) => _runner.Kernels[operation].Implementation;

        public override void Dispose() => _runner.Dispose();
    }
}
