namespace HpcBatchNorm.Training;

/// <summary>An <see cref="IProgress{T}"/> that tells at once, on the thread that reports; <see cref="Progress{T}"/> tells later, on another.</summary>
internal sealed class Told<T>(Action<T> tell) : IProgress<T>
{
    public void Report(T value) => tell(value);
}
