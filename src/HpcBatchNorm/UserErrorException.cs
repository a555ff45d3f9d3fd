namespace HpcBatchNorm;

/// <summary>
/// Something the user can put right: a path, a file, a setting. The message is one line that names the thing, what was expected, what was found
/// and the fix; the command prints it without a stack trace and exits with 1.
/// </summary>
public class UserErrorException : Exception
{
    /// <summary>Creates the error with its line.</summary>
    public UserErrorException(string message)
        : base(message)
    {
    }

    /// <summary>Creates the error with its line and what caused it.</summary>
    public UserErrorException(string message, Exception innerException)
        : base(message, innerException)
    {
    }

    /// <summary>Creates an error without a message; exists because every exception has this constructor.</summary>
    public UserErrorException()
    {
    }
}
