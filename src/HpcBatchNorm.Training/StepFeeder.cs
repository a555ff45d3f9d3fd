using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Sessions;

namespace HpcBatchNorm.Training;

/// <summary>
/// Makes steps on the loader's batches. Where the device takes images while it computes, those of the next step are loaded and brought to it meanwhile.
/// </summary>
internal sealed class StepFeeder
{
    private readonly BatchLoader _loader;
    private readonly BatchMixer? _mixer;
    private readonly Action _stageNext;
    private TrainingSession? _session;
    private double? _staged;
    private CancellationToken _stop;
    private Batch? _loaded;

    /// <param name="loader">Gives the batches.</param>
    /// <param name="mixer">Mixes their images; null where they stay as they are.</param>
    public StepFeeder(BatchLoader loader, BatchMixer? mixer = null) => (_loader, _stageNext, _mixer) = (loader, StageNext, mixer);

    /// <summary>Waits for the next step's batch, which <see cref="Step"/> then finds; for who must know that it is there before the step begins.</summary>
    /// <exception cref="OperationCanceledException">The token was cancelled before.</exception>
    /// <exception cref="UserErrorException">The images cannot be read.</exception>
    public void Load(CancellationToken stop) => _loaded ??= _loader.Next(stop);

    /// <summary>One step on the loader's next batch; returns its loss.</summary>
    /// <param name="session">Makes the step.</param>
    /// <param name="context">Its number and learning rate.</param>
    /// <param name="goesOn">The next step is the same session's.</param>
    /// <param name="stop">Ends waiting for images.</param>
    /// <param name="waited">Seconds spent waiting for images.</param>
    public float Step(TrainingSession session, in StepContext context, bool goesOn, CancellationToken stop, out double waited)
    {
        if (_mixer is not null || !session.CanStage)
        {
            Load(stop);
            Batch batch = _loaded!;
            _loaded = null;
            waited = batch.WaitSeconds;
            return _mixer is null
                ? session.Step(batch.Pixels, batch.Labels, context)
                : session.Step(batch.Pixels, _mixer.Mix(batch.PixelArray, batch.Labels, batch.Step), context);
        }

        _session = session;
        (waited, _staged, _stop) = (_staged ?? Stage(session, stop), null, stop);
        return session.StepStaged(context, goesOn ? _stageNext : null);
    }

    private double Stage(TrainingSession session, CancellationToken stop)
    {
        Batch batch = _loader.Next(stop);
        session.Stage(batch.Pixels, batch.Labels);
        return batch.WaitSeconds;
    }

    /// <summary>What stops or hinders the loader must not stop the step that runs: the next one meets it again.</summary>
    private void StageNext()
    {
        try
        {
            _staged = Stage(_session!, _stop);
        }
        catch (Exception error) when (error is OperationCanceledException or UserErrorException)
        {
            _staged = null;
        }
    }
}
