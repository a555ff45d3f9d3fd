namespace HpcBatchNorm.Data;

/// <summary>The names under which people keep the images to train on and those to evaluate on.</summary>
internal static class SplitNames
{
    private static readonly string[] Train = ["train", "training", "trainset", "trainingset", "trainimages", "trainingimages", "traindata", "trainingdata", "imagestrain", "segtrain"];
    private static readonly string[] Validation = ["val", "validation", "valid", "valset", "validset", "validationset", "valimages", "validationimages", "valdata", "validationdata", "imagesval", "segval"];
    private static readonly string[] Test = ["test", "testing", "testset", "testingset", "testimages", "testdata", "imagestest", "segtest"];

    /// <summary>
    /// Which split a folder of this name holds: <c>train</c>, <c>Training_Set</c>, <c>val</c>, ... null for any other name. Images to test on, where there
    /// are none to validate with, are what people evaluate on.
    /// </summary>
    /// <param name="name">The folder's name, in any case, its words with any of <c>_</c>, <c>-</c> and space between them.</param>
    /// <param name="isTest">True for test sets.</param>
    public static DatasetSplit? Of(string name, out bool isTest)
    {
        string plain = string.Concat(name.Where(c => c is not ('_' or '-' or ' '))).ToLowerInvariant();
        isTest = Test.Contains(plain);
        return Train.Contains(plain) ? DatasetSplit.Train : isTest || Validation.Contains(plain) ? DatasetSplit.Validation : null;
    }
}
