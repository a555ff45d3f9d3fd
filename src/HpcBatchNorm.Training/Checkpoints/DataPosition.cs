namespace HpcBatchNorm.Training;

/// <summary>
/// How a run's steps and its place in the data belong together. They are the same until a run is resumed with another number of images per step: its steps
/// go on being counted, while the place in the data, in images seen, stays where it was. The order of images and everything counted in epochs go by the
/// place; files, random numbers and whatever is counted in steps go by the steps.
/// </summary>
/// <param name="StepsPerEpoch">Steps of one epoch, from here on.</param>
/// <param name="Offset">Steps done minus the steps of <paramref name="StepsPerEpoch"/> that the place in the data is after.</param>
internal readonly record struct DataPosition(long StepsPerEpoch, long Offset)
{
    /// <summary>The number that a step has in the order of the data.</summary>
    public long DataStep(long step) => step - Offset;

    /// <summary>Epochs done after a step, with their fraction.</summary>
    public double Epoch(long step) => (double)(step - Offset) / StepsPerEpoch;

    /// <summary>Where a run goes on.</summary>
    /// <param name="checkpoint">What it goes on from.</param>
    /// <param name="config">How it goes on.</param>
    /// <param name="stepsPerEpoch">Steps of one epoch from here on.</param>
    /// <param name="note">Told when the steps are others than before.</param>
    public static DataPosition Continue(Checkpoint checkpoint, RunConfig config, long stepsPerEpoch, Action<string> note)
    {
        CheckpointInfo info = checkpoint.Info;
        int before = ImagesPerStep(checkpoint), now = config.ImagesPerStep;
        bool countsSteps = config.Steps > 0;
        if (before == now && (stepsPerEpoch == info.StepsPerEpoch || countsSteps))
        {
            return new DataPosition(stepsPerEpoch, info.Offset);
        }

        // Whole epochs stay; of the one that was going on, as many images. A part of a step is made again rather than left out.
        (long epochs, long steps) = Math.DivRem(info.Step - info.Offset, info.StepsPerEpoch);
        long seen = steps * before, done = Math.Min(stepsPerEpoch, seen / now);
        var position = new DataPosition(stepsPerEpoch, info.Step - (epochs * stepsPerEpoch + done));
        string again = seen > done * now && done < stepsPerEpoch ? FormattableString.Invariant($"; {seen - done * now} images of this epoch are seen again") : "";
        note(FormattableString.Invariant(
            $"An epoch has {stepsPerEpoch} steps of {now} images, it had {info.StepsPerEpoch} of {before}: the run goes on at epoch {position.Epoch(info.Step):0.###}, and counts its steps on from {info.Step}{again}."));
        return position;
    }

    /// <summary>Images of one of the checkpoint's steps.</summary>
    public static int ImagesPerStep(Checkpoint checkpoint) => ImagesPerStep(checkpoint.Info, checkpoint.Path);

    /// <summary>The same of what a file says of itself.</summary>
    public static int ImagesPerStep(CheckpointInfo info, string path) =>
        info.ImagesPerStep > 0 ? info.ImagesPerStep : new TrainingConfigBuilder().AddYaml(info.Config, path).Config.ImagesPerStep;
}
