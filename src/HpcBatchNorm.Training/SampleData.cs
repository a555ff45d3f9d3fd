using HpcBatchNorm.Data;

namespace HpcBatchNorm.Training;

/// <summary>The data set of those who have none: generated once in <see cref="Folder"/> of the current folder, used from then on.</summary>
internal static class SampleData
{
    public const string Folder = "sample-data";

    public static string Ensure(Action<string> note)
    {
        if (!Directory.Exists(Folder))
        {
            var options = new SampleOptions();
            note(FormattableString.Invariant(
                $"No data set named: drawing {options.Classes * (options.TrainPerClass + options.ValidationPerClass)} sample images of {options.Classes} classes into '{Folder}' (once)."));
            SampleGenerator.Write(Folder, options);
        }
        else
        {
            note($"No data set named: using the sample images in '{Folder}'.");
        }

        return Folder;
    }
}
