namespace HpcBatchNorm.Interchange;

/// <summary>The content of a file is not what was once written to it: cut short, or changed. Trying again does not help; another file does.</summary>
public sealed class DamagedFileException : UserErrorException
{
    /// <summary>Creates the error with its line.</summary>
    public DamagedFileException(string message)
        : base(message)
    {
    }

    /// <summary>Creates the error with its line and what caused it.</summary>
    public DamagedFileException(string message, Exception innerException)
        : base(message, innerException)
    {
    }

    /// <summary>Creates an error without a message; exists because every exception has this constructor.</summary>
    public DamagedFileException()
    {
    }
}
