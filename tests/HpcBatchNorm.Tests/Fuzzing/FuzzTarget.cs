namespace HpcBatchNorm.Tests.Fuzzing;

/// <summary>A parser of files from outside, and files it reads.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Seeds">Good files, which are changed.</param>
/// <param name="Parse">Reads a file: the path it lies at, and its bytes. May throw what says to the user what is wrong with it, and nothing else.</param>
internal sealed record FuzzTarget(string Name, Func<byte[][]> Seeds, Action<string, byte[]> Parse)
{
    /// <summary>The name the parser expects the file under.</summary>
    public string FileName { get; init; } = "input";

    /// <summary>True where what is not understood is passed over, so that nothing need be refused.</summary>
    public bool Tolerant { get; init; }

    /// <summary>Puts right what would stop a changed file at the door: checksums, compression. The file is left as it is where null.</summary>
    public Func<byte[], byte[]>? Repair { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Name;
}

/// <summary>What became of many changed files.</summary>
/// <param name="Inputs">How many there were.</param>
/// <param name="Refused">How many of them were refused with a line.</param>
/// <param name="Longest">The longest time one took.</param>
/// <param name="MostBeyond">Most bytes allocated beyond ten times a file's length.</param>
/// <param name="Failures">What must not happen, a line each.</param>
internal sealed record FuzzResult(int Inputs, int Refused, TimeSpan Longest, long MostBeyond, IReadOnlyList<string> Failures);
