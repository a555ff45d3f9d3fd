namespace HpcBatchNorm.Training;

/// <summary>The observer of a rank that has nobody to speak to: it keeps warnings until they can be brought to rank 0.</summary>
internal sealed class HeldNotes : ITrainingObserver
{
    private const string Warning = "warning:";

    private readonly List<string> _held = [];

    public void Note(string message)
    {
        if (message.StartsWith(Warning, StringComparison.Ordinal))
        {
            _held.Add(message[Warning.Length..].Trim());
        }
    }

    /// <summary>What has been kept, one warning a line.</summary>
    public string Take()
    {
        string all = string.Join('\n', _held.Select(h => h.ReplaceLineEndings(" ")));
        _held.Clear();
        return all;
    }

    /// <summary>A warning as rank 0 says it for another.</summary>
    public static string From(string rank, string warning) => $"{Warning} {rank}: {warning}";
}
