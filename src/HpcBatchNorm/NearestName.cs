namespace HpcBatchNorm;

/// <summary>Finds the name somebody probably meant.</summary>
internal static class NearestName
{
    /// <summary>", did you mean 'x'?" for a name close to one of those known; empty when none is close.</summary>
    public static string Hint(string name, IEnumerable<string> known) => Find(name, known) is string nearest ? $", did you mean '{nearest}'?" : "";

    /// <summary>The end of a sentence about an unknown name: ", did you mean 'x'?" for a name close to one of those known, else a full stop.</summary>
    public static string HintOrStop(string name, IEnumerable<string> known) => Hint(name, known) is { Length: > 0 } hint ? hint : ".";

    /// <summary>The known name with the fewest edits, at most a third of its letters (and at least two); null when none is that close.</summary>
    public static string? Find(string name, IEnumerable<string> known)
    {
        (string? best, int edits) = (null, int.MaxValue);
        foreach (string candidate in known)
        {
            // Of a name out of a damaged file, which may be as long as that, nothing is near.
            if (Math.Abs(name.Length - candidate.Length) > Math.Max(2, candidate.Length / 3))
            {
                continue;
            }

            int distance = Edits(name.ToUpperInvariant(), candidate.ToUpperInvariant());
            if (distance < edits && distance <= Math.Max(2, candidate.Length / 3))
            {
                (best, edits) = (candidate, distance);
            }
        }

        return best;
    }

    /// <summary>Levenshtein's distance: insertions, deletions and replacements that turn one word into the other.</summary>
    private static int Edits(string a, string b)
    {
        int[] row = [.. Enumerable.Range(0, b.Length + 1)];
        for (int i = 1; i <= a.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= b.Length; j++)
            {
                int replace = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
                diagonal = row[j];
                row[j] = Math.Min(replace, Math.Min(row[j], row[j - 1]) + 1);
            }
        }

        return row[^1];
    }
}
