namespace HpcBatchNorm.Training;

/// <summary>Sums over some steps.</summary>
internal struct StepWindow(LossSum before)
{
    private double _waited;

    /// <summary>Steps of this process.</summary>
    public long Steps { get; private set; }

    public double Seconds { get; private set; }

    /// <summary>All losses, those before a resume included.</summary>
    public LossSum Losses { get; private set; } = before;

    public readonly double MeanLoss => Losses.Mean;

    public readonly double WaitShare => Seconds > 0 ? Math.Min(1, _waited / Seconds) : 0;

    public readonly double ImagesPerSecond(int batch) => Seconds > 0 ? Steps * batch / Seconds : 0;

    public void Add(float loss, double seconds, double waited)
    {
        Steps++;
        Losses = Losses.Add(loss);
        Seconds += seconds;
        _waited += waited;
    }
}
