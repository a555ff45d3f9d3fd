using HpcBatchNorm.Data;

namespace HpcBatchNorm.Training;

/// <summary>
/// How a run's steps and its place in the data belong together. They are the same until a run is resumed with another number of images per step: its steps
/// go on being counted, while the place in the data, in images seen, stays where it was. The order of images and everything counted in epochs go by the
/// place; files, random numbers and whatever is counted in steps go by the steps.
/// </summary>
/// <param name="StepsPerEpoch">Steps of one epoch, from here on.</param>
/// <param name="Offset">Steps done minus the steps of <paramref name="StepsPerEpoch"/> that the place in the data is after.</param>
/// <param name="Shift">The epoch in whose middle steps of another size began: their images follow on those seen before. Null where no epoch is like that.</param>
internal readonly record struct DataPosition(long StepsPerEpoch, long Offset, EpochShift? Shift = null)
{
    /// <summary>The number that a step has in the order of the data.</summary>
    public long DataStep(long step) => step - Offset;

    /// <summary>Epochs done after a step, with their fraction.</summary>
    public double Epoch(long step) => (double)(step - Offset) / StepsPerEpoch;

    /// <summary>Where a run goes on.</summary>
    /// <param name="checkpoint">What it goes on from.</param>
    /// <param name="config">How it goes on.</param>
    /// <param name="images">Images of the data set.</param>
    /// <param name="note">Told when the steps are others than before.</param>
    public static DataPosition Continue(Checkpoint checkpoint, RunConfig config, int images, Action<string> note)
    {
        CheckpointInfo info = checkpoint.Info;
        int before = ImagesPerStep(checkpoint), now = config.ImagesPerStep;
        long stepsPerEpoch = images / now;
        bool countsSteps = config.Steps > 0;
        if (before == now && (stepsPerEpoch == info.StepsPerEpoch || countsSteps))
        {
            return new DataPosition(stepsPerEpoch, info.Offset, info.Shift);
        }

        // Whole epochs stay. Of the one that was going on, what was not seen is left, in as many whole steps as it makes: they are the epoch's last ones.
        (long epoch, long steps) = Math.DivRem(info.Step - info.Offset, info.StepsPerEpoch);
        long seen = steps == 0 ? 0 : Math.Min(images, steps * before + (info.Shift?.Epoch == epoch ? info.Shift.Value.Images : 0));
        long left = (images - seen) / now, done = stepsPerEpoch - left, shift = seen - done * now;
        var position = new DataPosition(
            stepsPerEpoch, info.Step - (epoch * stepsPerEpoch + done), left > 0 && shift != 0 ? new EpochShift(epoch, (int)shift) : null);
        note(FormattableString.Invariant(
            $"An epoch has {stepsPerEpoch} steps of {now} images, it had {info.StepsPerEpoch} of {before}: the run goes on at epoch {position.Epoch(info.Step):0.###}, and counts its steps on from {info.Step}.") + (seen == 0 ? "" : FormattableString.Invariant(
            $" Of this epoch {seen} images are behind it, and the {images - seen} others make {left} steps{((images - seen) % now == 0 ? "" : FormattableString.Invariant($", which leaves out {(images - seen) % now}"))}.")));
        return position;
    }

    /// <summary>Images of one of the checkpoint's steps.</summary>
    public static int ImagesPerStep(Checkpoint checkpoint) => ImagesPerStep(checkpoint.Info, checkpoint.Path);

    /// <summary>The same of what a file says of itself.</summary>
    public static int ImagesPerStep(CheckpointInfo info, string path) =>
        info.ImagesPerStep > 0 ? info.ImagesPerStep : new TrainingConfigBuilder().AddYaml(info.Config, path).Config.ImagesPerStep;
}
